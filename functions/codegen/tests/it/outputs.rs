//! Several files and patches: asked for by a schema on every wire, checked by us, and never stored if anything is wrong.

use codegen::{Codegen, CodegenConfig, Output, Provider, ProviderKeys};
use serde_json::{Value, json};

use crate::support::{
    FakeProvider, Lab, Reply, anthropic, chat, codegen, config, failure, gemini, generate, openai, with,
};

const PATCH: &str = "--- a/src/a.ts\n+++ b/src/a.ts\n@@ -1 +1 @@\n-export {};\n+export const a = 1;\n";

/// The answer of a provider with this text, and where its request has the schema.
fn wire(provider: Provider, text: &str) -> (Value, &'static str) {
    match provider {
        Provider::OpenAi => (openai(text), "/text/format/schema"),
        Provider::Anthropic => (anthropic(text), "/output_config/format/schema"),
        Provider::Gemini => (gemini(text), "/generationConfig/responseJsonSchema"),
        Provider::Compatible => (chat(text), "/response_format/json_schema/schema"),
    }
}

/// The same answer, cut off at its limit of tokens.
fn cut_off(provider: Provider, text: &str) -> Value {
    let (body, _) = wire(provider, text);
    match provider {
        Provider::OpenAi => with(
            with(body, "/status", json!("incomplete")),
            "/incomplete_details",
            json!({ "reason": "max_output_tokens" }),
        ),
        Provider::Anthropic => with(body, "/stop_reason", json!("max_tokens")),
        Provider::Gemini => with(body, "/candidates/0/finishReason", json!("MAX_TOKENS")),
        Provider::Compatible => with(body, "/choices/0/finish_reason", json!("length")),
    }
}

async fn lab(body: &Value) -> (FakeProvider, Lab) {
    let fake = FakeProvider::start(vec![Reply::ok(body)]).await;
    let mut all = config(Some(&fake), Some(&fake), Some(&fake));
    (all.base_urls.compatible, all.models.compatible) = (Some(fake.url.clone()), "qwen3-max".to_owned());
    let lab = codegen(all, &Provider::ALL);
    (fake, lab)
}

fn inputs(provider: Provider, output: &str) -> Value {
    json!({ "prompt": "Write it.", "provider": provider, "output": output })
}

fn set() -> Value {
    json!({ "files": [{ "path": "./src//a.ts", "content": "export {};\n" }, { "path": "b.md", "content": "" }], "deleted": ["old"] })
}

#[tokio::test]
async fn every_wire_is_asked_for_files_and_patches_by_a_schema() {
    for provider in Provider::ALL {
        let (body, pointer) = wire(provider, &set().to_string());
        let (fake, lab) = lab(&body).await;
        let made = generate(&lab, inputs(provider, "files")).await;
        assert_eq!((made.name.as_str(), made.media_type, made.kind), ("files.json", "application/json", "code"));
        assert_eq!(made.output, Output::Files);
        let expected = r#"{"files":[{"path":"src/a.ts","content":"export {};\n"},{"path":"b.md","content":""}],"deleted":["old"]}"#;
        assert_eq!(made.text, expected, "{provider}: always in the same form");
        let schema = fake.requests()[0].body.pointer(pointer).cloned().unwrap();
        assert_eq!(
            (&schema["required"], &schema["additionalProperties"]),
            (&json!(["files", "deleted"]), &json!(false))
        );
        assert_eq!(made.metadata["output"], json!("files"));
        assert_eq!(made.metadata["prompt_templates"][0]["name"], json!("files"));
        assert_eq!(made.metadata["parameters"]["json_schema"]["sha256"].as_str().unwrap().len(), 64);

        let (body, pointer) = wire(provider, &json!({ "patch": PATCH }).to_string());
        let (fake, lab) = self::lab(&body).await;
        let made = generate(&lab, inputs(provider, "patch")).await;
        assert_eq!((made.name.as_str(), made.media_type), ("changes.diff", "text/x-diff; charset=utf-8"));
        assert_eq!(made.text, PATCH, "{provider}");
        assert_eq!(fake.requests()[0].body.pointer(pointer).unwrap()["required"], json!(["patch"]));
        assert_eq!(made.metadata["prompt_templates"][0]["name"], json!("patch"));
    }
}

#[tokio::test]
async fn a_server_that_knows_no_schemas_may_put_a_fence_around_its_answer() {
    let (_, lab) =
        lab(&chat(&format!("```json\n{}\n```", json!({ "files": [{ "path": "a", "content": "x" }] })))).await;
    let made = generate(&lab, inputs(Provider::Compatible, "files")).await;
    assert_eq!(made.text, r#"{"files":[{"path":"a","content":"x"}],"deleted":[]}"#);
}

#[tokio::test]
async fn an_answer_that_is_wrong_in_any_way_is_no_result_on_any_wire() {
    let file = |path: &str| json!({ "path": path, "content": "canary" });
    let files = |files: Value| json!({ "files": files, "deleted": [] }).to_string();
    let many: Value = (0..501).map(|at| file(&format!("f{at}"))).collect();
    let large = json!([{ "path": "canary", "content": "x".repeat(1024 * 1024 + 1) }]);
    let cases = [
        ("files", "Here are your files: canary".to_owned(), "the answer is no set of files"),
        ("files", files(json!([file("a")])).replace("]}", ""), "the answer is no set of files"),
        ("files", json!({ "files": [file("a")], "canary": [] }).to_string(), "the answer is no set of files"),
        ("files", files(json!([{ "path": "canary" }])), "the answer is no set of files"),
        ("files", files(json!([])), "the answer changes no file"),
        ("files", files(json!([file("a"), file("../canary")])), "the answer's files[1].path is no path of a workspace"),
        ("files", files(json!([file("/canary")])), "the answer's files[0].path is no path of a workspace"),
        ("files", files(json!([file(".git/canary")])), "the answer's files[0].path is no path of a workspace"),
        (
            "files",
            files(json!([file("canary"), file("./canary")])),
            "the answer's files[1].path names a path for the second time",
        ),
        (
            "files",
            files(json!([file("canary"), file("Canary")])),
            "the answer's files[1].path differs from another path only in case",
        ),
        ("files", files(many), "the answer's files has more than 500 entries"),
        ("files", files(large), "the answer's files[0].content has more than 1,048,576 bytes"),
        (
            "files",
            files(json!([{ "path": "a", "content": "canary\0" }])),
            "the answer's files[0].content has the character NUL",
        ),
        ("patch", PATCH.to_owned(), "the answer is no patch"),
        ("patch", json!({ "patch": "canary" }).to_string(), "cannot be applied to any workspace: line 1:"),
        (
            "patch",
            json!({ "patch": PATCH.replace("src/a.ts", "../canary") }).to_string(),
            "cannot be applied to any workspace: line 1:",
        ),
        (
            "patch",
            json!({ "patch": PATCH.replace("@@ -1 +1 @@", "@@ -1,9 +1,9 @@") }).to_string(),
            "cannot be applied to any workspace: line 6:",
        ),
        (
            "patch",
            json!({ "patch": format!("{PATCH}GIT binary patch\ncanary\n") }).to_string(),
            "cannot be applied to any workspace: line 6:",
        ),
    ];
    for provider in Provider::ALL {
        for (output, text, reason) in &cases {
            let (body, _) = wire(provider, text);
            let (_, lab) = lab(&body).await;
            let (error, retryable, outcome) = failure(&lab, inputs(provider, output)).await;
            assert!(
                error.message.contains(reason) && !retryable,
                "{provider} {output}: {} lacks {reason}",
                error.message
            );
            assert!(!format!("{outcome:?}").contains("canary"), "the error repeats the answer");
            assert!(outcome.artifacts.is_empty());
            assert_eq!(lab.ledger.ends()[0].usage.unwrap().output_tokens, Some(30), "its tokens count");
        }
        for text in [set().to_string(), set().to_string().replace("]}", "")] {
            let (_, lab) = lab(&cut_off(provider, &text)).await;
            let (error, ..) = failure(&lab, inputs(provider, "files")).await;
            assert!(error.message.contains("cut off"), "{provider}: {}", error.message);
        }
    }
}

#[tokio::test]
async fn a_wrong_answer_falls_back_to_the_next_model() {
    let wrong = FakeProvider::start(vec![Reply::ok(&openai("{}"))]).await;
    let right = FakeProvider::start(vec![Reply::ok(&anthropic(&set().to_string()))]).await;
    let lab = codegen(config(Some(&wrong), Some(&right), None), &[Provider::OpenAi, Provider::Anthropic]);
    let made = generate(&lab, json!({ "prompt": "p", "output": "files" })).await;
    assert_eq!((made.provider, wrong.calls()), ("anthropic", 1));
    assert_eq!(made.metadata["attempts"][0]["reason"], json!("the answer is no set of files"));
}

#[tokio::test]
async fn an_output_has_its_own_content_type_and_schema() {
    let lab = codegen(config(None, None, None), &Provider::ALL);
    for (inputs, expected) in [
        (json!({ "prompt": "p", "output": "zip" }), "inputs.output: must be text, files or patch"),
        (
            json!({ "prompt": "p", "output": "files", "content_type": "text/csv" }),
            "inputs.content_type: is only for the output text",
        ),
        (
            json!({ "prompt": "p", "output": "patch", "json_schema": { "type": "object" } }),
            "inputs.json_schema: is only for the output text",
        ),
    ] {
        let (error, ..) = failure(&lab, inputs).await;
        assert!(error.message.contains(expected), "{} lacks {expected}", error.message);
    }
}

#[tokio::test]
async fn the_template_has_the_form_that_the_step_asks_for() {
    let keys = |_| std::future::ready(ProviderKeys::from_secret("{}"));
    let config = CodegenConfig { allow_template: true, ..CodegenConfig::default() };
    let lab = Lab::new(Codegen::new(config, keys).unwrap());
    for (output, start) in
        [("files", "{\"files\":[{\"path\":\"DRAFT.md\""), ("patch", "--- /dev/null\n+++ b/DRAFT.md\n")]
    {
        let made = generate(&lab, json!({ "topic": "t", "output": output })).await;
        assert!(made.text.starts_with(start) && made.provider == "template", "{}", made.text);
    }
}
