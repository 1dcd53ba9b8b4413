//! What servers send within the formats: several choices, errors with status 200, placeholders, byte order marks, comments.

use std::time::Duration;

use codegen::{CodegenConfig, Provider};
use serde_json::{Value, json};
use shared::domain::model_call::Charge;

use crate::streams::{events, then, whole};
use crate::support::{
    End, FakeProvider, Lab, Reply, anthropic, chat, codegen, config, event, failure, gemini, generate, openai, topic,
    with,
};

/// Only this provider, which sends this reply.
async fn alone(provider: Provider, reply: Reply) -> Lab {
    let fake = FakeProvider::start(vec![reply]).await;
    let (mut all, _) = then(provider, &fake, &fake);
    all.order = Some(vec![provider.into()]);
    codegen(all, &Provider::ALL)
}

#[tokio::test]
async fn of_several_choices_the_first_one_is_the_answer() {
    for (provider, name, field) in
        [(Provider::Compatible, "choices", "delta"), (Provider::Gemini, "candidates", "content")]
    {
        let mut streamed = events(provider, "a text");
        let second = |chunk: &Value| {
            let mut chunk = chunk.clone();
            chunk[name][0]["index"] = json!(1);
            match provider {
                Provider::Gemini => chunk[name][0][field]["parts"] = json!([{ "text": "OTHER" }]),
                _ => chunk[name][0][field] = json!({ "content": "OTHER" }),
            }
            chunk
        };
        let others = [second(&streamed[1]), second(&streamed[1])];
        streamed.insert(3, others[0].clone());
        streamed.insert(1, others[1].clone());
        let lab = alone(provider, Reply::events(&streamed)).await;
        assert_eq!(generate(&lab, topic()).await.text, "a text", "{provider}");

        let mut body = whole(provider, "a text");
        let mut other = whole(provider, "OTHER")[name][0].clone();
        other["index"] = json!(1);
        body[name].as_array_mut().unwrap().insert(0, other);
        let lab = alone(provider, Reply::ok(&body)).await;
        assert_eq!(generate(&lab, topic()).await.text, "a text", "{provider}");
        // Protobuf omits an index of 0.
        body[name][1].as_object_mut().unwrap().remove("index");
        let lab = alone(provider, Reply::ok(&body)).await;
        assert_eq!(generate(&lab, topic()).await.text, "a text", "{provider}");
    }
}

#[tokio::test]
async fn a_byte_order_mark_and_other_ends_of_lines_lose_nothing() {
    for provider in Provider::ALL {
        let text: String = events(provider, "a text").iter().map(event).collect();
        for body in [format!("\u{feff}{text}"), text.replace('\n', "\r"), text.replace('\n', "\r\n")] {
            let lab = alone(provider, Reply::events(&[]).body(body, 1)).await;
            assert_eq!(generate(&lab, topic()).await.text, "a text", "{provider}");
        }
    }
}

#[tokio::test]
async fn an_error_with_status_200_is_the_same_streamed_or_not() {
    for (code, kind, is_charged) in [
        ("server_error", "transient", false),
        ("rate_limit_exceeded", "transient", true),
        ("insufficient_quota", "billing", false),
        ("invalid_prompt", "rejected", true),
    ] {
        let mut response = with(openai(""), "/status", json!("failed"));
        response["error"] = json!({ "code": code, "message": "m" });
        response["output"] = json!([]);
        if !is_charged {
            response["usage"] = Value::Null;
        }
        let event = json!({ "type": "response.failed", "response": response });
        for reply in [Reply::ok(&response), Reply::events(&[event])] {
            let lab = alone(Provider::OpenAi, reply).await;
            lab.ledger.set_prices(&[("openai", "gpt-6-luna")]);
            let (error, retryable, _) = failure(&lab, topic()).await;
            let attempt = &error.details["attempts"][0];
            assert_eq!((&attempt["kind"], retryable), (&json!(kind), kind == "transient"), "{code}");
            assert_eq!(attempt["reason"], json!(format!("{code} within the answer")));
            let end = &lab.ledger.ends()[0];
            assert_eq!((end.charge != Charge::Ceiling, end.usage.is_some()), (is_charged, is_charged), "{code}");
            assert_eq!(end.cooldown.is_some(), kind != "rejected", "{code}");
        }
    }
    // Google's list, and an answer beside an error that is none.
    let listed = json!([{ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED" } }]);
    let (error, ..) = failure(&alone(Provider::Gemini, Reply::ok(&listed)).await, topic()).await;
    assert_eq!(error.details["attempts"][0]["reason"], json!("RESOURCE_EXHAUSTED within the answer"));
    for (provider, body) in [(Provider::Compatible, chat("x")), (Provider::Gemini, gemini("x"))] {
        let mut body = body;
        body["error"] = Value::Null;
        assert_eq!(generate(&alone(provider, Reply::ok(&body)).await, topic()).await.text, "x");
        assert_eq!(generate(&alone(provider, Reply::events(&events(provider, "x"))).await, topic()).await.text, "x");
    }
}

#[tokio::test]
async fn the_output_tokens_at_the_start_of_a_message_are_no_count() {
    let mut all = events(Provider::Anthropic, "a text");
    let at = all.len() - 2;
    assert_eq!(all[at]["type"], json!("message_delta"));
    all[at].as_object_mut().unwrap().remove("usage");
    let lab = alone(Provider::Anthropic, Reply::events(&all)).await;
    lab.ledger.set_prices(&[("anthropic", "claude-sonnet-5-5")]);
    assert_eq!(generate(&lab, topic()).await.text, "a text");
    let end = &lab.ledger.ends()[0];
    let usage = end.usage.unwrap();
    let input = anthropic("")["usage"]["input_tokens"].as_u64().unwrap() + 90;
    assert_eq!((usage.input_tokens, usage.output_tokens), (Some(input), None));
    assert_eq!(end.charge, Charge::Ceiling);
}

#[tokio::test]
async fn a_server_that_only_keeps_the_connection_open_hangs() {
    let checks = Provider::ALL.into_iter().flat_map(|provider| {
        let all = events(provider, "a text");
        let half: String = all[..all.len() - 1].iter().map(event).collect();
        [String::new(), half].map(|start| async move {
            let hanging = FakeProvider::start(vec![Reply::events(&[]).body(start, 1).ends(End::Comments)]).await;
            let other = if provider == Provider::Anthropic { Provider::Gemini } else { Provider::Anthropic };
            let second = FakeProvider::start(vec![Reply::ok(&whole(other, "x"))]).await;
            let (all, other) = then(provider, &hanging, &second);
            let (idle_timeout, request_timeout) = (Duration::from_secs(1), Duration::from_mins(1));
            let lab = codegen(CodegenConfig { idle_timeout, request_timeout, ..all }, &Provider::ALL);
            let made = generate(&lab, topic()).await;
            assert_eq!(made.provider, other.as_str());
            assert_eq!(made.metadata["attempts"][0]["reason"], json!("nothing received for 1.0 s"), "{provider}");
        })
    });
    futures::future::join_all(checks).await;
}

#[tokio::test]
async fn a_missing_setting_is_not_looked_for_in_the_secret() {
    let fake = FakeProvider::start(vec![Reply::ok(&chat("x"))]).await;
    let mut all = config(None, None, None);
    let inputs = json!({ "prompt": "p", "provider": "openai_compatible" });
    let (error, ..) = failure(&codegen(all.clone(), &[]), inputs.clone()).await;
    assert!(error.message.ends_with("Set OPENAI_COMPATIBLE_BASE_URL in the environment."), "{}", error.message);
    (all.base_urls.compatible, all.order) = (Some(fake.url.clone()), None);
    let (error, ..) = failure(&codegen(all.clone(), &[]), inputs).await;
    assert!(error.message.ends_with("Set OPENAI_COMPATIBLE_MODEL in the environment."), "{}", error.message);
    let (error, ..) = failure(&codegen(all, &[]), topic()).await;
    let both = "GEMINI_API_KEY or OPENAI_API_KEY or ANTHROPIC_API_KEY in the secret that LLM_SECRET_ID names, or \
                OPENAI_COMPATIBLE_MODEL in the environment.";
    assert!(error.message.ends_with(both), "{}", error.message);
}
