//! Keys, prompts and texts never appear in errors, events, metadata or logs. A canary in each of them detects leaks.

use std::sync::{Arc, Mutex};

use codegen::{Codegen, ProviderKeys};
use serde_json::json;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata};

use crate::support::{FakeProvider, Lab, Reply, anthropic, config, failure, gemini, generate, openai, with};

const KEY: &str = "canary-key";
const SECRET: &str =
    r#"{"OPENAI_API_KEY":"canary-key","ANTHROPIC_API_KEY":"canary-key","GEMINI_API_KEY":"canary-key"}"#;

fn with_canary_keys(fake: &FakeProvider) -> Lab {
    let keys = |_| std::future::ready(ProviderKeys::from_secret(SECRET));
    Lab::new(Codegen::new(config(Some(fake), Some(fake), Some(fake)), keys).unwrap())
}

/// What the database records.
fn told(lab: &Lab) -> String {
    format!("{:?} {:?}", lab.ledger.starts(), lab.ledger.ends())
}

#[tokio::test]
async fn an_echoed_key_or_prompt_is_not_shown() {
    let echo = json!({ "error": { "type": KEY, "code": KEY, "message": format!("{KEY} canary-prompt"), "param": "canary prompt" } });
    let html = Reply::ok(&echo).with_header("content-type", "text/html");
    let unreadable = Reply::ok(&json!({ "id": KEY, "text": "canary-prompt" }));
    let broken = Reply::ok(&echo).body(format!("{{{KEY} canary-prompt"), 1);
    for reply in [Reply::json(400, &echo), Reply::json(401, &echo), Reply::json(500, &echo), html, unreadable, broken] {
        let fake = FakeProvider::start(vec![reply]).await;
        let codegen = with_canary_keys(&fake);
        let (error, _, outcome) = failure(&codegen, json!({ "prompt": "canary-prompt" })).await;
        let shown = format!("{error:?} {outcome:?} {:?} {}", codegen.codegen, told(&codegen));
        assert!(!shown.contains("canary"), "{shown}");
        assert!(
            fake.requests().iter().all(|seen| seen.body.to_string().contains("canary-prompt")),
            "the canary was sent"
        );
    }
}

/// Replies in which a provider returns this word as a name, a code, a type or a reason.
fn echoes(word: &str) -> Vec<Reply> {
    let error = json!({ "error": { "type": word, "code": word, "param": word, "status": word, "details": [{ "reason": word }] } });
    let list = json!([{ "error": { "status": word } }]);
    let ended = |body: serde_json::Value, pointer: &str| Reply::ok(&with(body, pointer, json!(word)));
    let incomplete = with(openai("half"), "/status", json!("incomplete"));
    let failed = with(openai("x"), "/status", json!("failed"));
    vec![
        Reply::json(400, &error),
        Reply::json(401, &error),
        Reply::json(429, &error),
        Reply::json(500, &error),
        Reply::json(418, &list),
        ended(openai("x"), "/status"),
        Reply::ok(&with(incomplete, "/incomplete_details", json!({ "reason": word }))),
        Reply::ok(&with(failed, "/error", json!({ "code": word, "message": word }))),
        ended(openai("x"), "/output/1/type"),
        ended(anthropic("x"), "/stop_reason"),
        ended(gemini("x"), "/candidates/0/finishReason"),
        Reply::ok(&json!({ "promptFeedback": { "blockReason": word } })),
    ]
}

#[tokio::test]
async fn no_field_of_an_answer_shows_part_of_the_key_or_the_prompt() {
    // The key, its start, its end, a shortened form, and the prompt.
    for word in [KEY, "canary-k", "nary-key", "can..key", "canary-prompt", "canary_prompt"] {
        for provider in ["openai", "anthropic", "gemini"] {
            for reply in echoes(word) {
                let fake = FakeProvider::start(vec![reply.clone()]).await;
                let inputs = json!({ "prompt": "canary-prompt canary_prompt", "provider": provider });
                // A reply in another provider's format is unreadable.
                let lab = with_canary_keys(&fake);
                let (error, _, outcome) = failure(&lab, inputs).await;
                let shown = format!("{error:?} {outcome:?} {}", told(&lab));
                assert!(!shown.contains("nary") && !shown.contains("can.."), "{word}: {shown}");
            }
        }
    }
}

#[tokio::test]
async fn a_model_name_that_contains_the_key_or_the_prompt_is_not_shown() {
    for word in [KEY, "gpt-6-luna-canary-key", "canary-prompt", "gpt-6-luna-canary-prompt", "can..key", "canary\u{0}"] {
        let bodies = [
            ("openai", with(openai("x"), "/model", json!(word))),
            ("anthropic", with(anthropic("x"), "/model", json!(word))),
            ("gemini", with(gemini("x"), "/modelVersion", json!(word))),
        ];
        for (provider, body) in bodies {
            let fake = FakeProvider::start(vec![Reply::ok(&body)]).await;
            let lab = with_canary_keys(&fake);
            let made = generate(&lab, json!({ "prompt": "canary-prompt", "provider": provider })).await;
            // It is accounted for as the model that was asked.
            assert_eq!(json!(made.model), made.metadata["model_requested"], "{word}");
            assert_eq!(made.metadata["model_served"], json!(null), "{word}");
            assert_eq!(lab.ledger.ends()[0].model_served, None, "{word}");
            let shown = format!("{} {}", told(&lab), made.metadata);
            assert!(!shown.contains("canary"), "{shown}");
        }
    }
}

#[tokio::test]
async fn events_and_metadata_contain_no_prompt_text_or_key() {
    let fake = FakeProvider::start(vec![Reply::ok(&openai("canary-text"))]).await;
    let lab = with_canary_keys(&fake);
    let made = generate(&lab, json!({ "prompt": "canary-prompt" })).await;
    assert_eq!(fake.requests()[0].headers["authorization"], format!("Bearer {KEY}"));
    assert!(made.text.contains("canary-text"));
    let shown = format!("{} {}", told(&lab), made.metadata);
    assert!(!shown.contains("canary"), "{shown}");
    let sha256_of_the_prompt = "74094a7203ad9f94c2268d2b76bfa27f6b857a1248a15bbec1dd94c6df2d67be";
    assert_eq!(made.metadata["prompt_sha256"], json!(sha256_of_the_prompt));
}

#[tokio::test]
async fn logs_contain_no_prompt_text_or_key() {
    let logs = Logs::default();
    // Set it for the whole process, because per-thread subscribers race for the call-site cache. So it also records
    // other tests in this process.
    tracing::subscriber::set_global_default(logs.clone()).unwrap();
    let echo = json!({ "error": { "code": "server_error", "type": KEY, "param": "canary-prompt", "message": format!("{KEY} canary-prompt") } });
    let answer = Reply::ok(&with(anthropic("canary-text"), "/model", json!(KEY)));
    let fake = FakeProvider::start(vec![Reply::json(500, &echo), Reply::json(401, &echo), answer]).await;
    generate(&with_canary_keys(&fake), json!({ "prompt": "canary-prompt" })).await;
    let lines = logs.0.lock().unwrap().join("\n");
    assert!(lines.contains("retrying") && lines.contains("no usable answer from the model"), "{lines}");
    assert!(!lines.contains("canary"), "{lines}");
}

/// Records everything that any crate logs at any level.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Logs {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.0.lock().unwrap().push(format!("{span:?}"));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        self.0.lock().unwrap().push(format!("{values:?}"));
    }

    fn event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn an_answer_that_repeats_the_key_is_rejected() {
    let files = r#"{"files": [{"path": "a", "content": "canary\u002dkey"}]}"#;
    let patch = r#"{"patch": "--- a/a\n+++ b/a\n@@ -1 +1 @@\n-x\n+can\u0061ry-key\n"}"#;
    for (reply, output) in [
        (openai("your key is canary-key"), "text"),
        (anthropic("canary-key"), "text"),
        (gemini("the key: canary-key."), "text"),
        (openai(r#"{"key": "canary\u002dkey"}"#), "text"),
        (openai(files), "files"),
        (openai(patch), "patch"),
    ] {
        let fake = FakeProvider::start(vec![Reply::ok(&reply)]).await;
        let inputs = json!({ "prompt": "p", "output": output });
        let (error, _, outcome) = failure(&with_canary_keys(&fake), inputs).await;
        assert!(error.message.contains("repeats the key"), "{error:?}");
        assert!(!format!("{error:?} {outcome:?}").contains(KEY));
    }
}
