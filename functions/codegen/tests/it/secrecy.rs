//! Keys, prompts and texts stay out of whatever is shown: a canary in each looks for leaks.

use std::sync::{Arc, Mutex};

use codegen::{Codegen, ProviderKeys};
use serde_json::json;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata};

use crate::support::{Fake, Reply, anthropic, config, failure, generate, openai};

const KEY: &str = "canary-key";
const SECRET: &str = r#"{"OPENAI_API_KEY":"canary-key","ANTHROPIC_API_KEY":"canary-key"}"#;

fn keyed(fake: &Fake) -> Codegen {
    Codegen::new(config(Some(fake), Some(fake), None), |_| std::future::ready(ProviderKeys::from_secret(SECRET)))
        .unwrap()
}

#[tokio::test]
async fn a_provider_that_echoes_key_and_prompt_does_not_get_them_shown() {
    let echo = json!({ "error": { "type": KEY, "code": KEY, "message": format!("{KEY} canary-prompt"), "param": "canary prompt" } });
    let html = Reply::ok(&echo).with_header("content-type", "text/html");
    let unreadable = Reply::ok(&json!({ "id": KEY, "text": "canary-prompt" }));
    let broken = Reply::ok(&echo).body(format!("{{{KEY} canary-prompt"), 1);
    for reply in [Reply::json(400, &echo), Reply::json(401, &echo), Reply::json(500, &echo), html, unreadable, broken] {
        let fake = Fake::start(vec![reply]).await;
        let codegen = keyed(&fake);
        let (error, _, outcome) = failure(&codegen, json!({ "prompt": "canary-prompt" })).await;
        let shown = format!("{error:?} {outcome:?} {codegen:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(fake.seen().iter().all(|seen| seen.body.to_string().contains("canary-prompt")), "the canary was sent");
    }
}

#[tokio::test]
async fn neither_events_nor_metadata_hold_the_prompt_the_text_or_the_key() {
    let fake = Fake::start(vec![Reply::ok(&openai("canary-text"))]).await;
    let made = generate(&keyed(&fake), json!({ "prompt": "canary-prompt" })).await;
    assert_eq!(fake.seen()[0].headers["authorization"], format!("Bearer {KEY}"));
    assert!(made.text.contains("canary-text"));
    let shown = format!("{:?} {}", made.events, made.metadata);
    assert!(!shown.contains("canary"), "{shown}");
    let sha256_of_the_prompt = "74094a7203ad9f94c2268d2b76bfa27f6b857a1248a15bbec1dd94c6df2d67be";
    assert_eq!(made.metadata["prompt_sha256"], json!(sha256_of_the_prompt));
}

#[tokio::test]
async fn logs_hold_neither_prompt_nor_text_nor_key() {
    let logs = Logs::default();
    // For the whole process, since per-thread ones race for the cache of call sites; so other tests are watched as well.
    tracing::subscriber::set_global_default(logs.clone()).unwrap();
    let echo = json!({ "error": { "code": "server_error", "message": format!("{KEY} canary-prompt") } });
    let fake =
        Fake::start(vec![Reply::json(500, &echo), Reply::json(401, &echo), Reply::ok(&anthropic("canary-text"))]).await;
    generate(&keyed(&fake), json!({ "prompt": "canary-prompt" })).await;
    let lines = logs.0.lock().unwrap().join("\n");
    assert!(lines.contains("asking again") && lines.contains("provider left without an answer"), "{lines}");
    assert!(!lines.contains("canary"), "{lines}");
}

/// Whatever is logged, by whichever crate and at whichever level.
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
