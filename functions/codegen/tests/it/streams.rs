//! Streamed answers: the same as whole ones, and never half of one.

use std::time::{Duration, Instant};

use codegen::{CodegenConfig, Provider};
use serde_json::{Value, json};
use shared::domain::model_call::Charge;

use crate::support::{
    End, FakeProvider, Lab, Reply, anthropic, chat, codegen, config, event, failure, gemini, generate, openai, topic,
};

/// The events of a streamed answer, which is the same as [`whole`].
pub fn events(provider: Provider, text: &str) -> Vec<Value> {
    let parts: Vec<String> = text.chars().map(String::from).collect();
    match provider {
        Provider::OpenAi => {
            let delta =
                |part: &String| json!({ "type": "response.output_text.delta", "output_index": 1, "delta": part });
            let mut events = vec![json!({ "type": "response.created", "response": { "status": "in_progress" } })];
            events.extend(parts.iter().map(delta));
            events.push(json!({ "type": "response.completed", "response": openai(text) }));
            events
        }
        Provider::Anthropic => {
            let mut start = anthropic(text);
            (start["content"], start["stop_reason"]) = (json!([]), Value::Null);
            start["usage"]["output_tokens"] = json!(1);
            let delta = |part: &String| json!({ "type": "content_block_delta", "index": 1, "delta": { "type": "text_delta", "text": part } });
            let mut events = vec![
                json!({ "type": "message_start", "message": start }),
                json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "thinking", "thinking": "" } }),
                json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "thinking_delta", "thinking": "hm" } }),
                json!({ "type": "content_block_stop", "index": 0 }),
                json!({ "type": "content_block_start", "index": 1, "content_block": { "type": "text", "text": "" } }),
                json!({ "type": "ping" }),
            ];
            events.extend(parts.iter().map(delta));
            events.push(json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": { "output_tokens": 30 } }));
            events.push(json!({ "type": "message_stop" }));
            events
        }
        Provider::Gemini => {
            let chunk = |part: Value, more: Value| {
                let mut chunk = gemini("");
                chunk["candidates"][0]["content"]["parts"] = json!([part]);
                chunk["candidates"][0]["finishReason"] = more;
                chunk["usageMetadata"]["candidatesTokenCount"] = json!(1);
                chunk
            };
            let mut events = vec![chunk(json!({ "text": "hm", "thought": true }), Value::Null)];
            events.extend(parts.iter().map(|part| chunk(json!({ "text": part }), Value::Null)));
            let mut last = chunk(json!({ "text": "" }), json!("STOP"));
            last["usageMetadata"]["candidatesTokenCount"] = json!(18);
            events.push(last);
            events
        }
        Provider::Compatible => {
            let chunk = |delta: Value, reason: Value| {
                json!({ "model": "qwen3-max-2026", "usage": null,
                "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }] })
            };
            let mut events = vec![chunk(json!({ "role": "assistant", "content": null }), Value::Null)];
            events.extend(parts.iter().map(|part| chunk(json!({ "content": part }), Value::Null)));
            events.push(chunk(json!({}), json!("stop")));
            events.push(json!({ "model": "qwen3-max-2026", "choices": [], "usage": chat("")["usage"] }));
            events.push(json!("[DONE]"));
            events
        }
    }
}

/// The answer that is not streamed.
pub fn whole(provider: Provider, text: &str) -> Value {
    match provider {
        Provider::OpenAi => openai(text),
        Provider::Anthropic => anthropic(text),
        Provider::Gemini => gemini(text),
        Provider::Compatible => chat(text),
    }
}

/// A configuration in which `provider` is the fake, and then Anthropic or Gemini, which works.
pub fn then(provider: Provider, fake: &FakeProvider, second: &FakeProvider) -> (CodegenConfig, Provider) {
    let other = if provider == Provider::Anthropic { Provider::Gemini } else { Provider::Anthropic };
    let mut all = config(None, None, None);
    all.order = Some(vec![provider.into(), other.into()]);
    *all.base_urls.get_mut(provider) = Some(fake.url.clone());
    *all.base_urls.get_mut(other) = Some(second.url.clone());
    "qwen3-max".clone_into(&mut all.models.compatible);
    (all, other)
}

async fn alone(provider: Provider, reply: Reply) -> (FakeProvider, Lab) {
    let fake = FakeProvider::start(vec![reply]).await;
    let (mut all, _) = then(provider, &fake, &fake);
    all.order = Some(vec![provider.into()]);
    all.request_timeout = Duration::from_secs(20);
    let lab = codegen(all, &Provider::ALL);
    lab.ledger.set_prices(&[("openai", "gpt-6-luna"), ("openai_compatible", "qwen3-max")]);
    (fake, lab)
}

#[tokio::test]
async fn a_streamed_answer_is_the_same_as_a_whole_one() {
    let text = "# Gates\n\nÜber 1 \u{1f6aa}, \"quoted\".";
    for provider in Provider::ALL {
        let (fake, streamed) = alone(provider, Reply::events(&events(provider, text))).await;
        let streamed_text = generate(&streamed, topic()).await;
        let (_, plain) = alone(provider, Reply::ok(&whole(provider, text))).await;
        assert_eq!(streamed_text, generate(&plain, topic()).await, "{provider}");
        assert_eq!(streamed_text.text, text);
        assert_eq!(streamed.ledger.ends()[0].usage, plain.ledger.ends()[0].usage, "{provider}");
        assert_eq!(streamed.ledger.ends()[0].charge, plain.ledger.ends()[0].charge, "{provider}");
        let seen = &fake.requests()[0];
        assert!(seen.path.contains("stream") || seen.body["stream"] == json!(true), "{provider}");
        assert_eq!(seen.headers["accept-encoding"], "identity");
    }
}

#[tokio::test]
async fn a_stream_without_its_end_is_cut_off() {
    for provider in Provider::ALL {
        let all = events(provider, "a text");
        for (name, body) in [
            ("no events", String::new()),
            ("the start", event(&all[0])),
            ("no last event", all[..all.len() - 1].iter().map(event).collect()),
            ("half an event", all.iter().map(event).collect::<String>().trim_end().to_owned() + "\n"),
        ] {
            let reply = Reply::events(&[]).body(body, 1);
            let (fake, lab) = alone(provider, reply).await;
            let (error, retryable, _) = failure(&lab, topic()).await;
            let expected = "the answer is empty or truncated";
            assert!(error.message.contains(expected) && retryable, "{provider} {name}: {}", error.message);
            assert_eq!((fake.calls(), lab.ledger.ends()[0].charge), (1, Charge::Ceiling), "{provider} {name}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_never_an_answer() {
    for provider in Provider::ALL {
        let all = events(provider, "a text");
        let half: String = all[..all.len() - 1].iter().map(event).collect();
        let (_, lab) = alone(provider, Reply::events(&[]).body(half, 1).ends(End::Breaks)).await;
        let (error, retryable, _) = failure(&lab, topic()).await;
        assert!(error.message.contains("the connection was lost") && retryable, "{provider}: {}", error.message);
        assert_eq!(lab.ledger.ends()[0].charge, Charge::Ceiling, "{provider}");
    }
}

#[tokio::test]
async fn a_stream_that_hangs_is_seen_before_the_timeout() {
    for provider in Provider::ALL {
        let all = events(provider, "a text");
        let half: String = all[..all.len() - 1].iter().map(event).collect();
        // It hangs within the answer, or before it.
        let replies =
            [Reply::events(&[]).body(half, 1).ends(End::Hangs), Reply::events(&all).after(Duration::from_mins(1))];
        let checks = replies.map(|reply| async move {
            let hanging = FakeProvider::start(vec![reply]).await;
            let other = if provider == Provider::Anthropic { Provider::Gemini } else { Provider::Anthropic };
            let second = FakeProvider::start(vec![Reply::events(&events(other, "x"))]).await;
            let (all, other) = then(provider, &hanging, &second);
            let quick = CodegenConfig { idle_timeout: Duration::from_secs(1), ..all };
            let lab = codegen(CodegenConfig { request_timeout: Duration::from_mins(1), ..quick }, &Provider::ALL);
            let started = Instant::now();
            let made = generate(&lab, topic()).await;
            assert_eq!((made.provider, hanging.calls()), (other.as_str(), 2), "{provider}");
            assert!(started.elapsed() < Duration::from_secs(10), "{provider}");
            let attempt = &made.metadata["attempts"][0];
            assert_eq!(attempt["reason"], json!("nothing received for 1.0 s"), "{provider}");
            assert!(lab.ledger.ends()[1].cooldown.is_some(), "{provider}");
        });
        futures::future::join_all(checks).await;
    }
}

#[tokio::test]
async fn the_last_provider_may_take_its_time_to_begin() {
    let slow = Reply::events(&events(Provider::OpenAi, "x")).after(Duration::from_millis(600));
    let fake = FakeProvider::start(vec![slow]).await;
    let quick = CodegenConfig { idle_timeout: Duration::from_millis(100), ..config(Some(&fake), None, None) };
    let lab = codegen(quick, &[Provider::OpenAi]);
    assert_eq!((generate(&lab, topic()).await.text.as_str(), fake.calls()), ("x", 1));
}

#[tokio::test]
async fn an_error_within_a_stream_is_not_an_answer() {
    for (provider, error, kind, reason) in [
        (
            Provider::OpenAi,
            json!({ "type": "error", "code": "server_error", "message": "m", "param": null }),
            "transient",
            "server_error",
        ),
        (
            Provider::OpenAi,
            json!({ "type": "error", "code": "insufficient_quota", "message": "m" }),
            "billing",
            "insufficient_quota",
        ),
        (
            Provider::Anthropic,
            json!({ "type": "error", "error": { "type": "overloaded_error", "message": "m" } }),
            "transient",
            "overloaded_error",
        ),
        (
            Provider::Anthropic,
            json!({ "type": "error", "error": { "type": "invalid_request_error", "message": "m" } }),
            "rejected",
            "invalid_request_error",
        ),
        (
            Provider::Gemini,
            json!({ "error": { "code": 503, "status": "UNAVAILABLE", "message": "m" } }),
            "transient",
            "UNAVAILABLE",
        ),
        (Provider::Compatible, json!({ "error": { "type": "x", "message": "m" } }), "transient", "an error"),
    ] {
        let mut all = events(provider, "a text");
        all.insert(2, error);
        let (fake, lab) = alone(provider, Reply::events(&all)).await;
        let (failed, ..) = failure(&lab, topic()).await;
        let attempt = &failed.details["attempts"][0];
        assert_eq!((&attempt["kind"], fake.calls()), (&json!(kind), 1), "{provider} {reason}");
        assert_eq!(attempt["reason"], json!(format!("{reason} within the answer")));
        assert_eq!(lab.ledger.ends()[0].charge, Charge::Ceiling, "{provider}");
    }
}

#[tokio::test]
async fn a_refused_or_cut_off_stream_is_not_an_answer() {
    let change = |provider: Provider, change: &dyn Fn(&mut Vec<Value>)| {
        let mut all = events(provider, "half");
        change(&mut all);
        (provider, all)
    };
    let last = |all: &mut Vec<Value>| all.len() - 1;
    for ((provider, all), reason) in [
        (
            change(Provider::OpenAi, &|all| {
                let at = last(all);
                all[at]["type"] = json!("response.incomplete");
                all[at]["response"]["status"] = json!("incomplete");
                all[at]["response"]["incomplete_details"] = json!({ "reason": "max_output_tokens" });
            }),
            "cut off: max_output_tokens",
        ),
        (
            change(Provider::OpenAi, &|all| {
                let at = last(all);
                all[at]["type"] = json!("response.failed");
                all[at]["response"]["status"] = json!("failed");
            }),
            "failed",
        ),
        (
            change(Provider::Anthropic, &|all| {
                let at = last(all) - 1;
                all[at]["delta"]["stop_reason"] = json!("max_tokens");
            }),
            "cut off: max_tokens",
        ),
        (
            change(Provider::Anthropic, &|all| {
                all.insert(2, json!({ "type": "content_block_start", "index": 1, "content_block": { "type": "tool_use", "name": "f" } }));
                // The text is the third block now.
                all.retain(|event| event["type"] != "content_block_delta" || event["index"] != 1);
            }),
            "tool call",
        ),
        (
            change(Provider::Gemini, &|all| {
                let at = last(all);
                all[at]["candidates"][0]["finishReason"] = json!("SAFETY");
            }),
            "refused: SAFETY",
        ),
        (
            change(Provider::Gemini, &|all| {
                all[1]["candidates"][0]["content"]["parts"] = json!([{ "functionCall": { "name": "f" } }]);
            }),
            "tool call",
        ),
        (
            change(Provider::Gemini, &|all| {
                *all = vec![
                    json!({ "promptFeedback": { "blockReason": "SAFETY" }, "usageMetadata": { "promptTokenCount": 7 } }),
                ];
            }),
            "blocked: SAFETY",
        ),
        (
            change(Provider::Compatible, &|all| {
                let at = last(all) - 2;
                all[at]["choices"][0]["finish_reason"] = json!("length");
            }),
            "cut off: length",
        ),
        (change(Provider::Compatible, &|all| all[1]["choices"][0]["delta"] = json!({ "refusal": "no" })), "refused"),
        (
            change(Provider::Compatible, &|all| {
                all[1]["choices"][0]["delta"] = json!({ "tool_calls": [{ "index": 0 }] });
            }),
            "tool call",
        ),
    ] {
        let (_, lab) = alone(provider, Reply::events(&all)).await;
        let (error, ..) = failure(&lab, topic()).await;
        assert!(error.message.contains(reason), "{provider}: {} lacks {reason}", error.message);
        assert_eq!(error.details["attempts"][0]["kind"], json!("unusable"));
        assert!(lab.ledger.ends()[0].usage.is_some(), "{provider} {reason}: its tokens count");
    }
}

#[tokio::test]
async fn an_endless_stream_is_abandoned() {
    let comments = format!(": {}\n\n", "x".repeat(1 << 16));
    let (fake, lab) = alone(Provider::OpenAi, Reply::events(&[]).body(comments, usize::MAX)).await;
    let (error, ..) = failure(&lab, topic()).await;
    assert!(error.message.contains("longer than 67108864 bytes"), "{}", error.message);
    assert!(fake.sent() < 128 << 20, "{} bytes were read", fake.sent());
    let delta = event(&json!({ "choices": [{ "delta": { "content": "x".repeat(1 << 20) } }] }));
    let (fake, lab) = alone(Provider::Compatible, Reply::events(&[]).body(delta, usize::MAX)).await;
    let (error, ..) = failure(&lab, topic()).await;
    assert!(error.message.contains("longer than 6291456 bytes"), "{}", error.message);
    assert!(fake.sent() < 64 << 20, "{} bytes were read", fake.sent());
}

#[tokio::test]
async fn without_streaming_whole_answers_are_asked_for() {
    for provider in Provider::ALL {
        let fake = FakeProvider::start(vec![Reply::ok(&whole(provider, "x"))]).await;
        let (all, _) = then(provider, &fake, &fake);
        let lab = codegen(CodegenConfig { stream: false, ..all }, &Provider::ALL);
        generate(&lab, topic()).await;
        let seen = &fake.requests()[0];
        assert!(!seen.path.contains("stream") && seen.body["stream"] != json!(true), "{provider}");
        assert_eq!(seen.headers["accept-encoding"], "gzip");
    }
}

#[tokio::test]
async fn what_a_hanging_stream_has_so_far_is_shown_without_the_key_and_is_no_result() {
    let text = "A long enough beginning of an answer";
    for provider in Provider::ALL {
        let all = events(provider, text);
        let half: String = all[..all.len() - 1].iter().map(event).collect();
        let fake = FakeProvider::start(vec![Reply::events(&[]).body(half, 1).ends(End::Hangs)]).await;
        let (mut all, _) = then(provider, &fake, &fake);
        (all.order, all.tries_per_model) = (Some(vec![provider.into()]), 1);
        (all.progress_period, all.idle_timeout) = (Duration::ZERO, Duration::from_millis(500));
        let lab = codegen(all, &Provider::ALL);
        failure(&lab, topic()).await;
        let progress = lab.ledger.progress();
        let last = progress.last().unwrap_or_else(|| panic!("{provider}: nothing was shown"));
        assert_eq!((last.id, last.bytes), (lab.ledger.starts()[0].id, text.len()), "{provider}");
        // The end of the text may be the beginning of the key, as far as anybody knows.
        assert_eq!(last.tail, text[..text.len() - format!("key-{provider}").len()], "{provider}");
    }
}
