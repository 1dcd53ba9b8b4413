//! Parameters of a step, and what they demand of an answer.

use codegen::Provider;
use serde_json::json;

use crate::support::{FakeProvider, Reply, anthropic, chat, codegen, config, failure, gemini, generate, openai};

#[tokio::test]
async fn each_wire_has_the_parameters() {
    let schema = json!({ "type": "object", "required": ["a"], "properties": { "a": { "type": "integer" } } });
    let inputs = |provider| {
        json!({ "prompt": "p", "provider": provider, "max_output_tokens": 77, "temperature": 0.25,
        "reasoning_effort": "high", "json_schema": schema })
    };
    let named = json!({ "name": "answer", "schema": schema, "strict": false });
    let mut format = named.clone();
    format["type"] = json!("json_schema");
    for (provider, body, expected) in [
        (
            Provider::OpenAi,
            openai("{\"a\": 1}"),
            vec![
                ("/max_output_tokens", json!(77)),
                ("/temperature", json!(0.25)),
                ("/reasoning/effort", json!("high")),
                ("/text/format", format),
            ],
        ),
        (
            Provider::Anthropic,
            anthropic("```json\n{\"a\": 1}\n```"),
            vec![
                ("/max_tokens", json!(77)),
                ("/temperature", json!(0.25)),
                ("/output_config/effort", json!("high")),
                ("/output_config/format", json!({ "type": "json_schema", "schema": schema })),
            ],
        ),
        (
            Provider::Gemini,
            gemini("{\"a\": 1}"),
            vec![
                ("/generationConfig/maxOutputTokens", json!(77)),
                ("/generationConfig/temperature", json!(0.25)),
                ("/generationConfig/thinkingConfig/thinkingLevel", json!("high")),
                ("/generationConfig/responseJsonSchema", schema.clone()),
            ],
        ),
        (
            Provider::Compatible,
            chat("{\"a\": 1}"),
            vec![
                ("/max_tokens", json!(77)),
                ("/temperature", json!(0.25)),
                ("/reasoning_effort", json!("high")),
                ("/response_format", json!({ "type": "json_schema", "json_schema": named })),
            ],
        ),
    ] {
        let fake = FakeProvider::start(vec![Reply::ok(&body)]).await;
        let mut all = config(Some(&fake), Some(&fake), Some(&fake));
        (all.base_urls.compatible, all.models.compatible) = (Some(fake.url.clone()), "qwen3-max".to_owned());
        let made = generate(&codegen(all, &Provider::ALL), inputs(provider)).await;
        assert_eq!((made.name.as_str(), made.media_type), ("output.json", "application/json"));
        assert_eq!(made.text.trim(), "{\"a\": 1}", "{provider}");
        assert_eq!(made.metadata["parameters"]["max_output_tokens"], json!(77));
        assert_eq!(made.metadata["parameters"]["json_schema"]["sha256"].as_str().unwrap().len(), 64);
        let templates = &made.metadata["prompt_templates"];
        assert_eq!((&templates[0]["name"], &templates[0]["version"]), (&json!("json"), &json!(1)));
        for (pointer, value) in expected {
            assert_eq!(fake.requests()[0].body.pointer(pointer), Some(&value), "{provider} {pointer}");
        }
    }
}

#[tokio::test]
async fn an_answer_of_another_content_type_or_schema_is_unusable() {
    let schema = json!({ "type": "object", "required": ["a"] });
    for (text, inputs, reason) in [
        ("not json", json!({ "prompt": "p", "name": "a.json" }), "not valid JSON"),
        ("{\"a\":", json!({ "prompt": "p", "content_type": "application/json" }), "not valid JSON"),
        ("{}", json!({ "prompt": "p", "json_schema": schema }), "does not match its JSON schema (required)"),
        ("<!doctype html>", json!({ "prompt": "p" }), "looks like text/html"),
    ] {
        let fake = FakeProvider::start(vec![Reply::ok(&openai(text))]).await;
        let lab = codegen(config(Some(&fake), None, None), &[Provider::OpenAi]);
        let (error, retryable, _) = failure(&lab, inputs).await;
        assert!(error.message.contains(reason) && !retryable, "{}", error.message);
        assert_eq!(lab.ledger.ends()[0].usage.unwrap().output_tokens, Some(30), "its tokens count");
    }
}
