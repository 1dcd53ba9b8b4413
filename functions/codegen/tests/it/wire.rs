//! Each provider's format: requests, answers, unusable answers and token counts.

use std::time::Duration;

use codegen::{Api, CodegenConfig, Provider};
use serde_json::{Value, json};
use shared::domain::MicroUsd;
use shared::domain::model_call::Charge;

use crate::support::{
    FakeProvider, Reply, anthropic, chat, codegen, config, failure, gemini, generate, openai, topic, with,
};

#[tokio::test]
async fn openai_gets_a_responses_request_that_is_not_stored() {
    let fake = FakeProvider::start(vec![Reply::ok(&openai("a text"))]).await;
    let made = generate(&codegen(config(Some(&fake), None, None), &[Provider::OpenAi]), topic()).await;
    assert_eq!((made.text.as_str(), made.provider, made.model.as_str()), ("a text", "openai", "gpt-6-luna-2026-09-01"));
    let seen = &fake.requests()[0];
    assert_eq!(seen.path, "/v1/responses");
    assert_eq!(seen.headers["authorization"], "Bearer key-openai");
    assert_eq!(seen.body["store"], json!(false));
    assert_eq!(seen.body["model"], json!("gpt-6-luna"));
    assert_eq!(seen.body["max_output_tokens"], json!(16_384));
    assert!(seen.body["input"].to_string().contains("- how"));
}

#[tokio::test]
async fn anthropic_gets_a_messages_request() {
    let fake = FakeProvider::start(vec![Reply::ok(&anthropic("a text"))]).await;
    let made = generate(&codegen(config(None, Some(&fake), None), &[Provider::Anthropic]), topic()).await;
    assert_eq!((made.text.as_str(), made.model.as_str()), ("a text", "claude-sonnet-5-5-20260901"));
    let seen = &fake.requests()[0];
    assert_eq!(seen.path, "/v1/messages");
    assert_eq!(seen.headers["x-api-key"], "key-anthropic");
    assert_eq!(seen.body["max_tokens"], json!(16_384));
}

#[tokio::test]
async fn gemini_gets_a_generate_content_request_with_the_key_in_a_header() {
    let fake = FakeProvider::start(vec![Reply::ok(&gemini("a text"))]).await;
    let made = generate(&codegen(config(None, None, Some(&fake)), &[Provider::Gemini]), topic()).await;
    assert_eq!((made.text.as_str(), made.model.as_str()), ("a text", "gemini-3.8-flash-001"));
    let seen = &fake.requests()[0];
    assert_eq!(
        (seen.path.as_str(), seen.query.as_str()),
        ("/v1/models/gemini-3.8-flash:streamGenerateContent", "alt=sse")
    );
    assert_eq!(seen.headers["x-goog-api-key"], "key-gemini");
}

#[tokio::test]
async fn token_counts_mean_the_same_for_every_provider() {
    let tokens = |cache_write: u64, reasoning: u64| {
        json!({ "input_tokens": 100, "output_tokens": 30, "cached_input_tokens": if cache_write == 0 { 40 } else { 70 },
                "cache_write_input_tokens": cache_write, "reasoning_tokens": reasoning })
    };
    let (a, b, c) = (openai("x"), anthropic("x"), gemini("x"));
    for (provider, body, expected) in [
        (Provider::OpenAi, a, tokens(0, 12)),
        (Provider::Anthropic, b, tokens(20, 0)),
        (Provider::Gemini, c, tokens(0, 12)),
    ] {
        let fake = FakeProvider::start(vec![Reply::ok(&body)]).await;
        let lab = codegen(config(Some(&fake), Some(&fake), Some(&fake)), &[provider]);
        let made = generate(&lab, topic()).await;
        assert_eq!(made.metadata["tokens"], expected, "{provider}");
        assert_eq!(json!(lab.ledger.ends()[0].usage), expected, "{provider}");
    }
}

#[tokio::test]
async fn unreported_tokens_are_null_and_not_zero() {
    let fake = FakeProvider::start(vec![Reply::ok(&with(openai("x"), "/usage", Value::Null))]).await;
    let made = generate(&codegen(config(Some(&fake), None, None), &[Provider::OpenAi]), topic()).await;
    assert_eq!(made.metadata["tokens"]["input_tokens"], Value::Null);
    assert_eq!(made.metadata["tokens"]["cached_input_tokens"], Value::Null);
}

#[tokio::test]
async fn an_incomplete_refused_or_blocked_answer_with_status_200_is_unusable() {
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
        (Provider::OpenAi, failed, "failed"),
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
        let fake = FakeProvider::start(vec![Reply::ok(&body)]).await;
        let codegen = codegen(config(Some(&fake), Some(&fake), Some(&fake)), &[provider]);
        let mut inputs = topic();
        inputs["provider"] = json!(provider);
        let (error, retryable, _) = failure(&codegen, inputs).await;
        assert_eq!(error.code, "providers_failed");
        assert_eq!(error.details["attempts"][0]["kind"], json!("unusable"), "{provider}: {body}");
        assert!(error.message.contains(reason), "{provider}: {} lacks {reason}", error.message);
        assert!(!retryable && fake.calls() == 1, "{provider}: a retry would not help");
    }
}

#[tokio::test]
async fn the_model_name_is_sent_unchanged() {
    for model in ["qwen3-max", "o5-low", "gpt-6-luna-high", "claude-x-minimal", "some-zero"] {
        let all = [Reply::ok(&openai("x")), Reply::ok(&anthropic("x")), Reply::ok(&gemini("x"))];
        for (provider, reply) in [Provider::OpenAi, Provider::Anthropic, Provider::Gemini].into_iter().zip(all) {
            let fake = FakeProvider::start(vec![reply]).await;
            let codegen = codegen(config(Some(&fake), Some(&fake), Some(&fake)), &[provider]);
            let made = generate(&codegen, json!({ "prompt": "p", "provider": provider, "model": model })).await;
            assert_eq!(made.metadata["model_requested"], json!(model));
            let seen = &fake.requests()[0];
            match provider {
                Provider::Gemini => assert_eq!(seen.path, format!("/v1/models/{model}:streamGenerateContent")),
                _ => assert_eq!(seen.body["model"], json!(model)),
            }
            assert!(seen.body.get("reasoning").is_none() && seen.body.get("output_config").is_none(), "{}", seen.body);
        }
    }
}

#[tokio::test]
async fn an_answer_with_nul_is_unusable_and_its_tokens_count() {
    for (provider, body) in [
        (Provider::OpenAi, openai("a\u{0}b")),
        (Provider::Anthropic, anthropic("a\u{0}b")),
        (Provider::Gemini, gemini("\u{0}")),
    ] {
        let fake = FakeProvider::start(vec![Reply::ok(&body)]).await;
        let codegen = codegen(config(Some(&fake), Some(&fake), Some(&fake)), &[provider]);
        let (error, retryable, outcome) = failure(&codegen, json!({ "prompt": "p", "provider": provider })).await;
        assert!(error.message.contains("the answer contains the character NUL") && !retryable, "{}", error.message);
        assert_eq!(codegen.ledger.ends()[0].usage.unwrap().output_tokens, Some(30));
        assert!(!format!("{outcome:?}").contains("\\0"));
    }
}

#[tokio::test]
async fn an_answer_with_a_tool_call_next_to_its_text_is_unusable() {
    let call = json!({ "type": "function_call", "name": "f", "call_id": "c", "arguments": "{}" });
    let block = json!({ "type": "server_tool_use", "id": "t", "name": "f", "input": {} });
    let part = json!({ "functionCall": { "name": "f", "args": {} } });
    let append = |mut body: Value, pointer: &str, value: &Value| {
        body.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value.clone());
        body
    };
    for (provider, body) in [
        (Provider::OpenAi, append(openai("a preamble"), "/output", &call)),
        (Provider::Anthropic, append(anthropic("a preamble"), "/content", &block)),
        (Provider::Gemini, append(gemini("a preamble"), "/candidates/0/content/parts", &part)),
    ] {
        let fake = FakeProvider::start(vec![Reply::ok(&body)]).await;
        let codegen = codegen(config(Some(&fake), Some(&fake), Some(&fake)), &[provider]);
        let (error, ..) = failure(&codegen, json!({ "prompt": "p", "provider": provider })).await;
        assert!(error.message.contains("the model asked for a tool call"), "{}", error.message);
        assert_eq!(codegen.ledger.ends()[0].usage.unwrap().input_tokens, Some(100), "{provider}");
    }
}

#[tokio::test]
async fn invalid_utf8_is_unusable_and_the_content_type_is_case_insensitive() {
    let mut body = openai("?").to_string().into_bytes();
    let at = body.iter().position(|byte| *byte == b'?').unwrap();
    body[at] = 0xff;
    let fake = FakeProvider::start(vec![
        Reply::ok(&json!({})).body(body, 1),
        Reply::ok(&openai("x")).with_header("content-type", "Application/JSON; charset=UTF-8"),
    ]);
    let fake = fake.await;
    let codegen = codegen(config(Some(&fake), None, None), &[Provider::OpenAi]);
    let (error, ..) = failure(&codegen, topic()).await;
    assert!(error.message.contains("the answer is not UTF-8"), "{}", error.message);
    assert_eq!(generate(&codegen, topic()).await.text, "x");
}

#[tokio::test]
async fn the_tokens_of_a_blocked_prompt_are_reported() {
    let blocked = json!({ "promptFeedback": { "blockReason": "SAFETY" }, "usageMetadata": { "promptTokenCount": 7 } });
    let fake = FakeProvider::start(vec![Reply::ok(&blocked)]).await;
    let codegen = codegen(config(None, None, Some(&fake)), &[Provider::Gemini]);
    let (error, ..) = failure(&codegen, topic()).await;
    assert!(error.message.contains("the prompt was blocked: SAFETY"), "{}", error.message);
    let usage = codegen.ledger.ends()[0].usage.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (Some(7), None));
}

#[tokio::test]
async fn a_blocked_prompt_costs_its_input_and_not_the_ceiling() {
    let usage = json!({ "promptTokenCount": 1000, "totalTokenCount": 1000 });
    let blocked = json!({ "promptFeedback": { "blockReason": "SAFETY" }, "usageMetadata": usage });
    let stopped = |reason: &str| json!({ "candidates": [{ "finishReason": reason }], "usageMetadata": usage });
    for (body, reason) in
        [(blocked, "blocked: SAFETY"), (stopped("SAFETY"), "refused: SAFETY"), (stopped("STOP"), "is empty")]
    {
        for reply in [Reply::ok(&body), Reply::events(std::slice::from_ref(&body))] {
            let fake = FakeProvider::start(vec![reply]).await;
            let codegen = codegen(config(None, None, Some(&fake)), &[Provider::Gemini]);
            codegen.ledger.set_prices(&[("gemini", "gemini-3.8-flash")]);
            let (error, ..) = failure(&codegen, topic()).await;
            assert!(error.message.contains(reason), "{} lacks {reason}", error.message);
            assert_eq!(codegen.ledger.ends()[0].charge, Charge::Usage(MicroUsd(3000)), "{reason}");
        }
    }
}

#[tokio::test]
async fn tokens_that_openai_writes_to_its_cache_cost_more() {
    let usage = json!({ "input_tokens": 2410, "input_tokens_details": { "cached_tokens": 0, "cache_write_tokens": 400 },
                        "output_tokens": 77, "output_tokens_details": { "reasoning_tokens": 0 } });
    let fake = FakeProvider::start(vec![Reply::ok(&with(openai("x"), "/usage", usage))]).await;
    let codegen = codegen(config(Some(&fake), None, None), &[Provider::OpenAi]);
    generate(&codegen, topic()).await;
    // The built-in prices: 2,010 x 0.1 + 400 x 0.125 + 77 x 0.5 = 201 + 50 + 38.5
    assert_eq!(codegen.ledger.ends()[0].charge, Charge::Usage(MicroUsd(290)));
}

#[tokio::test]
async fn openai_is_asked_for_the_tier_whose_prices_are_known() {
    let fake = FakeProvider::start(vec![Reply::ok(&openai("x")), Reply::ok(&chat("x"))]).await;
    for openai_api in [Api::Responses, Api::Chat] {
        let lab = codegen(CodegenConfig { openai_api, ..config(Some(&fake), None, None) }, &[Provider::OpenAi]);
        generate(&lab, topic()).await;
        assert_eq!(fake.requests().pop().unwrap().body["service_tier"], json!("default"));
    }
}

#[tokio::test]
async fn what_openai_says_before_its_answer_is_no_part_of_it() {
    let mut body = openai("the answer");
    let commentary = json!({ "type": "message", "id": "msg_0", "phase": "commentary", "status": "completed",
                             "content": [{ "type": "output_text", "text": "I will now answer." }] });
    body["output"].as_array_mut().unwrap().insert(1, commentary.clone());
    body["output"][2]["phase"] = json!("final_answer");
    let delta =
        |at: u64, text: &str| json!({ "type": "response.output_text.delta", "output_index": at, "delta": text });
    let events = [
        json!({ "type": "response.output_item.added", "output_index": 1, "item": commentary }),
        delta(1, "I will now answer."),
        json!({ "type": "response.output_item.added", "output_index": 2, "item": body["output"][2] }),
        delta(2, "the answer"),
        json!({ "type": "response.completed", "response": body }),
    ];
    for reply in [Reply::ok(&body), Reply::events(&events)] {
        let fake = FakeProvider::start(vec![reply]).await;
        let quick = CodegenConfig { progress_period: Duration::ZERO, ..config(Some(&fake), None, None) };
        let codegen = codegen(quick, &[Provider::OpenAi]);
        assert_eq!(generate(&codegen, topic()).await.text, "the answer");
        assert!(codegen.ledger.progress().iter().all(|progress| !progress.tail.contains("now")));
    }
}

#[tokio::test]
async fn an_empty_answer_is_asked_for_again_only_by_the_next_attempt() {
    for body in [openai(" \n"), with(openai("x"), "/output", json!([]))] {
        let fake = FakeProvider::start(vec![Reply::ok(&body), Reply::ok(&openai("x"))]).await;
        let codegen = codegen(config(Some(&fake), None, None), &[Provider::OpenAi]);
        let (error, retryable, _) = failure(&codegen, topic()).await;
        assert!(error.message.contains("the answer is empty") && retryable, "{}", error.message);
        assert_eq!((fake.calls(), codegen.ledger.ends()[0].usage.unwrap().output_tokens), (1, Some(30)));
        assert!(codegen.ledger.cooldowns().is_empty(), "another request may have an answer");
        assert_eq!(generate(&codegen, topic()).await.text, "x");
    }
}

#[tokio::test]
async fn invalid_token_counts_are_ignored_and_the_answer_is_used() {
    for odd in [json!(null), json!(-1), json!(1.5), json!("9"), json!(5_000_000_000_u64), json!([]), json!(1e300)] {
        for (provider, body, pointer, name) in [
            (Provider::OpenAi, openai("x"), "/usage/input_tokens", "input_tokens"),
            (Provider::OpenAi, openai("x"), "/usage", "output_tokens"),
            (Provider::Anthropic, anthropic("x"), "/usage", "input_tokens"),
            (Provider::Anthropic, anthropic("x"), "/usage/output_tokens", "output_tokens"),
            (Provider::Gemini, gemini("x"), "/usageMetadata", "output_tokens"),
            (Provider::Gemini, gemini("x"), "/usageMetadata/promptTokenCount", "input_tokens"),
        ] {
            let fake = FakeProvider::start(vec![Reply::ok(&with(body, pointer, odd.clone()))]).await;
            let codegen = codegen(config(Some(&fake), Some(&fake), Some(&fake)), &[provider]);
            let made = generate(&codegen, topic()).await;
            assert_eq!((made.text.as_str(), &made.metadata["tokens"][name]), ("x", &Value::Null), "{provider} {odd}");
        }
    }
}

#[tokio::test]
async fn the_tokens_of_an_unusable_answer_are_reported() {
    let half = with(anthropic("half"), "/stop_reason", json!("max_tokens"));
    let (first, second) =
        (FakeProvider::start(vec![Reply::ok(&half)]).await, FakeProvider::start(vec![Reply::ok(&gemini("x"))]).await);
    let codegen = codegen(config(None, Some(&first), Some(&second)), &[Provider::Anthropic, Provider::Gemini]);
    generate(&codegen, topic()).await;
    let ends = codegen.ledger.ends();
    let providers: Vec<_> = codegen.ledger.starts().iter().map(|start| start.provider.clone()).collect();
    assert_eq!((providers, ends[0].usable, ends[1].usable), (vec!["anthropic".into(), "gemini".into()], false, true));
    assert_eq!(ends[0].usage.unwrap().output_tokens, Some(30));
}

#[tokio::test]
async fn a_fence_around_a_source_file_is_removed() {
    let fake = FakeProvider::start(vec![Reply::ok(&openai("```ts\nexport {};\n```"))]).await;
    let codegen = codegen(config(Some(&fake), None, None), &[Provider::OpenAi]);
    let made = generate(&codegen, json!({ "prompt": "p", "kind": "code", "name": "a.ts" })).await;
    assert_eq!((made.text.as_str(), made.kind, made.media_type), ("export {};\n", "code", "text/plain; charset=utf-8"));
    let made = generate(&codegen, json!({ "prompt": "p", "kind": "code" })).await;
    assert!(made.text.starts_with("```ts"));
}
