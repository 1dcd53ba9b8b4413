//! The inputs of a step.

use codegen::{CodegenConfig, Provider};
use serde_json::json;

use crate::support::{codegen, config, failure, generate};

#[tokio::test]
async fn invalid_inputs_fail_for_good_with_the_path_of_the_problem() {
    let codegen = codegen(config(None, None, None), &Provider::ALL);
    let cases = [
        (json!("text"), "inputs: "),
        (json!({}), "inputs.topic: is missing"),
        (json!({ "topic": "  " }), "inputs.topic: must not be empty"),
        (json!({ "topic": 7 }), "inputs.topic: must be a string"),
        (json!({ "topic": "t", "prompt": "p" }), "inputs.prompt: give either"),
        (json!({ "prompt": "p", "bullets": ["b"] }), "inputs.bullets: are only for a topic"),
        (json!({ "topic": "t", "bullets": "b" }), "inputs.bullets: must be a list"),
        (json!({ "topic": "t", "bullets": ["b", 1] }), "inputs.bullets[1]: must be a string"),
        (json!({ "topic": "t", "bullets": vec!["b"; 101] }), "inputs.bullets: must be a list of at most 100"),
        (json!({ "topic": "t".repeat(5000) }), "inputs.topic: must be at most"),
        (json!({ "prompt": "p".repeat(200_000) }), "inputs.prompt: must be at most"),
        (json!({ "prompt": "p", "kind": "poem" }), "inputs.kind: "),
        (json!({ "prompt": "p", "name": "../x.md" }), "inputs.name: "),
        (json!({ "prompt": "p", "name": ".hidden" }), "inputs.name: "),
        (json!({ "prompt": "p", "name": "a/b.md" }), "inputs.name: "),
        (json!({ "prompt": "p", "provider": "acme" }), "inputs.provider: "),
        (json!({ "prompt": "p", "model": "llama" }), "inputs.model: is not a known model name"),
        (json!({ "prompt": "p", "provider": "gemini", "model": "x/y" }), "inputs.model: must not contain"),
        (json!({ "prompt": "p", "provider": "gemini", "model": "gemini-x?key=1" }), "inputs.model: must be"),
        (
            json!({ "prompt": "p", "provider": "openai", "model": "anthropic::claude" }),
            "inputs.model: must not contain",
        ),
        (json!({ "prompt": "p", "modle": "gpt" }), "inputs.modle: is not a known field"),
        (json!({ "prompt": "p", "name": "a", "filename": "b" }), "inputs.filename: is another name of name"),
        (json!({ "prompt": "p", "artifacts": "x" }), "inputs.artifacts: must be a list of at most 20"),
        (json!({ "prompt": "p", "artifacts": ["x"] }), "inputs.artifacts[0]: must be the id of an artifact"),
        (json!({ "prompt": "p", "content_type": "text/html" }), "inputs.content_type: must be one of text/markdown"),
        (json!({ "prompt": "p", "max_output_tokens": 0 }), "inputs.max_output_tokens: must be a whole number"),
        (json!({ "prompt": "p", "temperature": 2.5 }), "inputs.temperature: must be a number from 0 to 2"),
        (
            json!({ "prompt": "p", "provider": "anthropic", "temperature": 1.5 }),
            "inputs.temperature: cannot be expressed",
        ),
        (json!({ "prompt": "p", "reasoning_effort": "max" }), "inputs.reasoning_effort: must be low, medium or high"),
        (json!({ "prompt": "p", "json_schema": [] }), "inputs.json_schema: must be a JSON schema"),
        (json!({ "prompt": "p", "name": "a.md", "json_schema": { "type": "object" } }), "inputs.json_schema: needs"),
        (json!({ "prompt": "p", "provider": "template" }), "inputs.provider: template is not allowed here"),
    ];
    for (inputs, expected) in cases {
        let (error, retryable, _) = failure(&codegen, inputs.clone()).await;
        assert_eq!((error.code.as_str(), retryable), ("invalid_inputs", false), "{inputs}");
        assert!(error.message.contains(expected), "{} lacks {expected}", error.message);
    }
}

#[tokio::test]
async fn every_problem_is_reported_at_once() {
    let codegen = codegen(config(None, None, None), &Provider::ALL);
    let (error, ..) = failure(&codegen, json!({ "topic": "", "kind": "poem", "name": "/" })).await;
    let paths: Vec<_> = error.details["problems"].as_array().unwrap().iter().map(|problem| &problem["path"]).collect();
    assert_eq!(paths, ["inputs.topic", "inputs.kind", "inputs.name"]);
}

#[tokio::test]
async fn null_counts_as_absent() {
    let codegen = codegen(CodegenConfig { allow_template: true, ..CodegenConfig::default() }, &[]);
    let inputs = json!({ "topic": "t", "bullets": null, "prompt": null, "kind": null, "name": null, "provider": null, "model": null,
                         "content_type": null, "temperature": null, "json_schema": null });
    assert_eq!(generate(&codegen, inputs).await.name, "README.md");
    assert_eq!(generate(&codegen, json!({ "prompt": "p" })).await.name, "output.md");
    assert_eq!(generate(&codegen, json!({ "prompt": "p", "filename": "a.md" })).await.name, "a.md");
}

#[tokio::test]
async fn markup_with_scripts_is_stored_as_plain_text() {
    let codegen = codegen(CodegenConfig { allow_template: true, ..CodegenConfig::default() }, &[]);
    let expected = [
        ("a.md", "text/markdown; charset=utf-8"),
        ("a.html", "text/plain; charset=utf-8"),
        ("a.svg", "text/plain; charset=utf-8"),
    ];
    for (name, media_type) in expected {
        let made = generate(&codegen, json!({ "prompt": "p", "name": name })).await;
        assert_eq!(made.media_type, media_type, "{name}");
    }
}

#[test]
fn an_invalid_configuration_fails_the_start() {
    let mut wrong = CodegenConfig::default();
    wrong.base_urls.openai = Some("https://user:canary@gateway.example/v1".into());
    let error = codegen::Codegen::new(wrong, |_| async { unreachable!("no step runs") }).unwrap_err();
    assert!(error.to_string().contains("base_urls.openai") && !format!("{error} {error:?}").contains("canary"));
    let mut wrong = CodegenConfig::default();
    wrong.models.gemini = "models/x".into();
    assert!(codegen::Codegen::new(wrong, |_| async { unreachable!("no step runs") }).is_err());
}
