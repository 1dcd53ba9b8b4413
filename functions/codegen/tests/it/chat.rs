//! Chat completions: of any server, and of OpenAI.

use codegen::{Api, Codegen, CodegenConfig, Provider, ProviderKeys};
use serde_json::{Value, json};

use crate::support::{FakeProvider, Lab, Reply, chat, codegen, config, failure, generate, topic, with};

/// A server with chat completions, without a key.
async fn compatible(replies: Vec<Reply>, secret: &'static str) -> (FakeProvider, Lab) {
    let fake = FakeProvider::start(replies).await;
    let mut all = CodegenConfig { order: None, ..config(None, None, None) };
    (all.base_urls.compatible, all.models.compatible) = (Some(fake.url.clone()), "qwen3-max".to_owned());
    let keys = move |_| std::future::ready(ProviderKeys::from_secret(secret));
    (fake, Lab::new(Codegen::new(all, keys).unwrap()))
}

#[tokio::test]
async fn an_openai_compatible_server_gets_chat_completions_with_or_without_a_key() {
    let inputs = json!({ "prompt": "p", "temperature": 0.5, "reasoning_effort": "low" });
    for (secret, authorization) in [("{}", None), (r#"{"OPENAI_COMPATIBLE_API_KEY":"local"}"#, Some("Bearer local"))] {
        let (fake, lab) = compatible(vec![Reply::ok(&chat("a text"))], secret).await;
        let made = generate(&lab, inputs.clone()).await;
        assert_eq!(
            (made.text.as_str(), made.provider, made.model.as_str()),
            ("a text", "openai_compatible", "qwen3-max-2026")
        );
        let seen = &fake.requests()[0];
        assert_eq!(seen.path, "/v1/chat/completions");
        assert_eq!(seen.headers.get("authorization").map(|value| value.to_str().unwrap()), authorization);
        assert_eq!((&seen.body["model"], &seen.body["max_tokens"]), (&json!("qwen3-max"), &json!(16_384)));
        assert_eq!(seen.body["messages"][1], json!({ "role": "user", "content": "p" }));
        assert_eq!((&seen.body["temperature"], &seen.body["reasoning_effort"]), (&json!(0.5), &json!("low")));
        assert!(seen.body.get("store").is_none(), "not every server knows it");
    }
}

#[tokio::test]
async fn openai_can_be_asked_by_chat_completions() {
    let fake = FakeProvider::start(vec![Reply::ok(&chat("a text"))]).await;
    let by_chat = CodegenConfig { openai_api: Api::Chat, stream: false, ..config(Some(&fake), None, None) };
    let made = generate(&codegen(by_chat, &[Provider::OpenAi]), topic()).await;
    assert_eq!((made.text.as_str(), made.provider), ("a text", "openai"));
    let seen = &fake.requests()[0];
    assert_eq!((seen.path.as_str(), &seen.body["store"]), ("/v1/chat/completions", &json!(false)));
    assert_eq!((&seen.body["max_completion_tokens"], &seen.body["stream"]), (&json!(16_384), &json!(false)));
}

#[tokio::test]
async fn an_unusable_chat_completion_is_no_answer() {
    let message = |message: Value| with(chat(""), "/choices/0/message", message);
    for (body, reason) in [
        (with(chat("half"), "/choices/0/finish_reason", json!("length")), "cut off: length"),
        (with(chat("half"), "/choices/0/finish_reason", Value::Null), "does not say that it is complete"),
        (with(chat("no"), "/choices/0/finish_reason", json!("content_filter")), "refused: content_filter"),
        (message(json!({ "content": null, "refusal": "no" })), "refused: refusal"),
        (message(json!({ "content": "a preamble", "tool_calls": [{ "id": "c" }] })), "tool call"),
        (message(json!({ "content": "a preamble", "function_call": { "name": "f" } })), "tool call"),
        (with(chat("x"), "/choices", json!([])), "unreadable"),
        (json!({}), "unreadable"),
    ] {
        let (_, lab) = compatible(vec![Reply::ok(&body)], "{}").await;
        let (error, ..) = failure(&lab, topic()).await;
        assert!(error.message.contains(reason), "{} lacks {reason}", error.message);
    }
    let parts = json!({ "content": [{ "type": "text", "text": "a " }, { "type": "text", "text": "text" }] });
    let (_, lab) = compatible(vec![Reply::ok(&message(parts))], "{}").await;
    assert_eq!(generate(&lab, topic()).await.text, "a text");
}

#[tokio::test]
async fn a_word_instead_of_a_key_may_be_in_the_answer() {
    let (_, lab) = compatible(vec![Reply::ok(&chat("run ollama"))], r#"{"OPENAI_COMPATIBLE_API_KEY":"ollama"}"#).await;
    assert_eq!(generate(&lab, topic()).await.text, "run ollama");
}
