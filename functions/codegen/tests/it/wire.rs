//! Each provider's format: requests, answers, what counts as no answer, and how tokens are counted.

use codegen::Provider;
use serde_json::{Value, json};

use crate::support::{Fake, Reply, anthropic, codegen, config, failure, gemini, generate, openai, topic, with};

#[tokio::test]
async fn openai_is_asked_by_responses_and_must_not_store_the_conversation() {
    let fake = Fake::start(vec![Reply::ok(&openai("a text"))]).await;
    let made = generate(&codegen(config(Some(&fake), None, None), &[Provider::OpenAi]), topic()).await;
    assert_eq!((made.text.as_str(), made.provider, made.model.as_str()), ("a text", "openai", "gpt-6-luna-2026-09-01"));
    let seen = &fake.seen()[0];
    assert_eq!(seen.path, "/v1/responses");
    assert_eq!(seen.headers["authorization"], "Bearer key-openai");
    assert_eq!(seen.body["store"], json!(false));
    assert_eq!(seen.body["model"], json!("gpt-6-luna"));
    assert_eq!(seen.body["max_output_tokens"], json!(16_384));
    assert!(seen.body["input"].to_string().contains("- how"));
}

#[tokio::test]
async fn anthropic_is_asked_by_messages() {
    let fake = Fake::start(vec![Reply::ok(&anthropic("a text"))]).await;
    let made = generate(&codegen(config(None, Some(&fake), None), &[Provider::Anthropic]), topic()).await;
    assert_eq!((made.text.as_str(), made.model.as_str()), ("a text", "claude-sonnet-5-5-20260901"));
    let seen = &fake.seen()[0];
    assert_eq!(seen.path, "/v1/messages");
    assert_eq!(seen.headers["x-api-key"], "key-anthropic");
    assert_eq!(seen.body["max_tokens"], json!(16_384));
}

#[tokio::test]
async fn gemini_is_asked_by_generate_content_with_the_key_outside_the_url() {
    let fake = Fake::start(vec![Reply::ok(&gemini("a text"))]).await;
    let made = generate(&codegen(config(None, None, Some(&fake)), &[Provider::Gemini]), topic()).await;
    assert_eq!((made.text.as_str(), made.model.as_str()), ("a text", "gemini-3.8-flash-001"));
    let seen = &fake.seen()[0];
    assert_eq!(seen.path, "/v1/models/gemini-3.8-flash:generateContent");
    assert_eq!(seen.headers["x-goog-api-key"], "key-gemini");
}

#[tokio::test]
async fn tokens_are_counted_alike_although_providers_count_differently() {
    let told = |cache_write: u64, reasoning: u64| {
        json!({ "input_tokens": 100, "output_tokens": 30, "cached_input_tokens": if cache_write == 0 { 40 } else { 70 },
                "cache_write_input_tokens": cache_write, "reasoning_tokens": reasoning })
    };
    let (a, b, c) = (openai("x"), anthropic("x"), gemini("x"));
    for (provider, body, expected) in
        [(Provider::OpenAi, a, told(0, 12)), (Provider::Anthropic, b, told(20, 0)), (Provider::Gemini, c, told(0, 12))]
    {
        let fake = Fake::start(vec![Reply::ok(&body)]).await;
        let made = generate(&codegen(config(Some(&fake), Some(&fake), Some(&fake)), &[provider]), topic()).await;
        assert_eq!(made.metadata["tokens"], expected, "{provider}");
        for (name, count) in expected.as_object().unwrap() {
            assert_eq!(made.events[0].payload[name], *count, "{provider} {name}");
        }
    }
}

#[tokio::test]
async fn tokens_that_are_not_told_are_not_zero() {
    let fake = Fake::start(vec![Reply::ok(&with(openai("x"), "/usage", Value::Null))]).await;
    let made = generate(&codegen(config(Some(&fake), None, None), &[Provider::OpenAi]), topic()).await;
    assert_eq!(made.metadata["tokens"]["input_tokens"], Value::Null);
    assert_eq!(made.metadata["tokens"]["cached_input_tokens"], Value::Null);
}

#[tokio::test]
async fn an_answer_with_status_200_that_is_no_answer_is_never_taken() {
    let incomplete = |reason: &str| {
        let body = with(openai("half"), "/status", json!("incomplete"));
        with(body, "/incomplete_details", json!({ "reason": reason }))
    };
    let refused = with(openai(""), "/output/1/content/0", json!({ "type": "refusal", "refusal": "no" }));
    let failed = with(openai("x"), "/status", json!("failed"));
    let blocked = json!({ "promptFeedback": { "blockReason": "PROHIBITED_CONTENT" }, "usageMetadata": {} });
    let stopped = |reason: &str| with(gemini("half"), "/candidates/0/finishReason", json!(reason));
    let cases = [
        (Provider::OpenAi, incomplete("max_output_tokens"), "max_output_tokens"),
        (Provider::OpenAi, incomplete("content_filter"), "content_filter"),
        (Provider::OpenAi, refused, "refus"),
        (Provider::OpenAi, with(failed, "/error", json!({ "code": "server_error" })), "failed (server_error)"),
        (Provider::OpenAi, openai(" \n"), "empty"),
        (Provider::OpenAi, with(openai("x"), "/output", json!([])), "empty"),
        (Provider::OpenAi, json!({ "surprise": true }), "unreadable"),
        (Provider::Anthropic, with(anthropic("half"), "/stop_reason", json!("max_tokens")), "max_tokens"),
        (Provider::Anthropic, with(anthropic("no"), "/stop_reason", json!("refusal")), "refusal"),
        (Provider::Anthropic, with(anthropic("half"), "/stop_reason", json!("pause_turn")), "pause_turn"),
        (Provider::Anthropic, with(anthropic("half"), "/stop_reason", Value::Null), "complete"),
        (Provider::Gemini, blocked, "PROHIBITED_CONTENT"),
        (Provider::Gemini, stopped("SAFETY"), "SAFETY"),
        (Provider::Gemini, stopped("MAX_TOKENS"), "MAX_TOKENS"),
        (Provider::Gemini, stopped("RECITATION"), "RECITATION"),
    ];
    for (provider, body, reason) in cases {
        let fake = Fake::start(vec![Reply::ok(&body)]).await;
        let codegen = codegen(config(Some(&fake), Some(&fake), Some(&fake)), &[provider]);
        let mut inputs = topic();
        inputs["provider"] = json!(provider);
        let (error, retryable, _) = failure(&codegen, inputs).await;
        assert_eq!(error.code, "providers_failed");
        assert_eq!(error.details["attempts"][0]["kind"], json!("unusable"), "{provider}: {body}");
        assert!(error.message.contains(reason), "{provider}: {} lacks {reason}", error.message);
        assert!(!retryable && fake.calls() == 1, "{provider}: the same would come again");
    }
}

#[tokio::test]
async fn what_an_unusable_answer_cost_is_told() {
    let half = with(anthropic("half"), "/stop_reason", json!("max_tokens"));
    let (first, second) = (Fake::start(vec![Reply::ok(&half)]).await, Fake::start(vec![Reply::ok(&gemini("x"))]).await);
    let codegen = codegen(config(None, Some(&first), Some(&second)), &[Provider::Anthropic, Provider::Gemini]);
    let made = generate(&codegen, topic()).await;
    let told: Vec<_> = made.events.iter().map(|event| (&event.payload["provider"], &event.payload["usable"])).collect();
    assert_eq!(told, [(&json!("anthropic"), &json!(false)), (&json!("gemini"), &json!(true))]);
    assert_eq!(made.events[0].payload["output_tokens"], json!(30));
}

#[tokio::test]
async fn a_fence_around_a_source_file_is_taken_off() {
    let fake = Fake::start(vec![Reply::ok(&openai("```ts\nexport {};\n```"))]).await;
    let codegen = codegen(config(Some(&fake), None, None), &[Provider::OpenAi]);
    let made = generate(&codegen, json!({ "prompt": "p", "kind": "code", "name": "a.ts" })).await;
    assert_eq!((made.text.as_str(), made.kind, made.media_type), ("export {};\n", "code", "text/plain; charset=utf-8"));
    let made = generate(&codegen, json!({ "prompt": "p", "kind": "code" })).await;
    assert!(made.text.starts_with("```ts"));
}
