//! A cancelled step spends no more tokens, and the tokens it spent are recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use codegen::Provider;
use futures::FutureExt;
use futures::future::ready;
use serde_json::{Value, json};
use shared::domain::{NewEvent, Outcome, Verdict};
use shared::worker::Ownership;

use crate::support::{FakeProvider, Reply, TIMEOUT, anthropic, codegen, config, openai, openai_error, topic, with};

const TWO: [Provider; 2] = [Provider::OpenAi, Provider::Anthropic];

/// Ownership that is lost after this many checks.
fn owned_for(checks: usize) -> Ownership {
    let checked = Arc::new(AtomicUsize::new(0));
    Ownership::new(Duration::from_millis(20), move || ready(checked.fetch_add(1, Ordering::SeqCst) < checks).boxed())
}

fn assert_ownership_lost(outcome: &Outcome) {
    let Verdict::Failed { error, retryable, .. } = &outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!((error.code.as_str(), *retryable), ("ownership_lost", false));
}

fn usage(events: &[NewEvent]) -> Vec<(&Value, &Value, &Value)> {
    events
        .iter()
        .map(|event| (&event.payload["provider"], &event.payload["usable"], &event.payload["output_tokens"]))
        .collect()
}

#[tokio::test]
async fn a_cancelled_step_sends_no_request() {
    let fake = FakeProvider::start(vec![Reply::ok(&openai("x"))]).await;
    let codegen = codegen(config(Some(&fake), None, None), &TWO);
    let outcome = codegen.generate(&topic(), TIMEOUT, &owned_for(0)).await.unwrap_err();
    assert_ownership_lost(&outcome);
    assert_eq!((fake.calls(), outcome.events.len()), (0, 0));
}

#[tokio::test]
async fn after_a_cancel_there_is_no_retry_and_no_fallback() {
    let half = Reply::ok(&with(openai("half"), "/status", json!("incomplete")));
    for (reply, spent) in [(half, true), (openai_error(500, "server_error"), false)] {
        let (first, second) =
            (FakeProvider::start(vec![reply]).await, FakeProvider::start(vec![Reply::ok(&anthropic("x"))]).await);
        let codegen = codegen(config(Some(&first), Some(&second), None), &TWO);
        // Only the check before the first request succeeds.
        let checked = Arc::new(AtomicUsize::new(0));
        let ownership =
            Ownership::new(Duration::MAX, move || ready(checked.fetch_add(1, Ordering::SeqCst) == 0).boxed());
        let outcome = codegen.generate(&topic(), TIMEOUT, &ownership).await.unwrap_err();
        assert_ownership_lost(&outcome);
        assert_eq!((first.calls(), second.calls()), (1, 0));
        let expected = [(&json!("openai"), &json!(false), &json!(30))];
        assert_eq!(usage(&outcome.events), if spent { &expected[..] } else { &[] });
    }
}

#[tokio::test]
async fn a_cancel_aborts_the_request_in_flight_and_reports_its_usage_as_unknown() {
    let hanging = FakeProvider::start(vec![Reply::ok(&openai("late")).after(Duration::from_mins(1))]).await;
    let second = FakeProvider::start(vec![Reply::ok(&anthropic("x"))]).await;
    let codegen = codegen(config(Some(&hanging), Some(&second), None), &TWO);
    let started = Instant::now();
    let outcome = codegen.generate(&topic(), TIMEOUT, &owned_for(3)).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3), "it must not wait for the answer");
    assert_ownership_lost(&outcome);
    assert_eq!((hanging.calls(), second.calls()), (1, 0));
    assert_eq!(usage(&outcome.events), [(&json!("openai"), &json!(false), &Value::Null)]);
}
