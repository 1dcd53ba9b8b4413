//! A cancelled step spends nothing more, and what it spent is recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use codegen::Provider;
use futures::FutureExt;
use futures::future::ready;
use serde_json::{Value, json};
use shared::domain::{NewEvent, Outcome, Verdict};
use shared::worker::Ownership;

use crate::support::{Fake, Reply, TIMEOUT, anthropic, codegen, config, openai, openai_error, topic, with};

const TWO: [Provider; 2] = [Provider::OpenAi, Provider::Anthropic];

/// Owned for this many checks.
fn owned_for(looks: usize) -> Ownership {
    let looked = Arc::new(AtomicUsize::new(0));
    Ownership::new(Duration::from_millis(20), move || ready(looked.fetch_add(1, Ordering::SeqCst) < looks).boxed())
}

fn assert_ownership_lost(outcome: &Outcome) {
    let Verdict::Failed { error, retryable, .. } = &outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!((error.code.as_str(), *retryable), ("ownership_lost", false));
}

fn told(events: &[NewEvent]) -> Vec<(&Value, &Value, &Value)> {
    events
        .iter()
        .map(|event| (&event.payload["provider"], &event.payload["usable"], &event.payload["output_tokens"]))
        .collect()
}

#[tokio::test]
async fn a_cancelled_step_asks_nobody() {
    let fake = Fake::start(vec![Reply::ok(&openai("x"))]).await;
    let codegen = codegen(config(Some(&fake), None, None), &TWO);
    let outcome = codegen.generate(&topic(), TIMEOUT, &owned_for(0)).await.unwrap_err();
    assert_ownership_lost(&outcome);
    assert_eq!((fake.calls(), outcome.events.len()), (0, 0));
}

#[tokio::test]
async fn after_a_cancel_neither_the_next_provider_nor_the_same_one_is_asked() {
    let half = Reply::ok(&with(openai("half"), "/status", json!("incomplete")));
    for (reply, spent) in [(half, true), (openai_error(500, "server_error"), false)] {
        let (first, second) = (Fake::start(vec![reply]).await, Fake::start(vec![Reply::ok(&anthropic("x"))]).await);
        let codegen = codegen(config(Some(&first), Some(&second), None), &TWO);
        // The one check is the one before the first request.
        let looked = Arc::new(AtomicUsize::new(0));
        let ownership =
            Ownership::new(Duration::MAX, move || ready(looked.fetch_add(1, Ordering::SeqCst) == 0).boxed());
        let outcome = codegen.generate(&topic(), TIMEOUT, &ownership).await.unwrap_err();
        assert_ownership_lost(&outcome);
        assert_eq!((first.calls(), second.calls()), (1, 0));
        let expected = [(&json!("openai"), &json!(false), &json!(30))];
        assert_eq!(told(&outcome.events), if spent { &expected[..] } else { &[] });
    }
}

#[tokio::test]
async fn a_cancel_gives_up_the_request_that_is_under_way_and_tells_that_its_cost_is_unknown() {
    let hanging = Fake::start(vec![Reply::ok(&openai("late")).after(Duration::from_mins(1))]).await;
    let second = Fake::start(vec![Reply::ok(&anthropic("x"))]).await;
    let codegen = codegen(config(Some(&hanging), Some(&second), None), &TWO);
    let started = Instant::now();
    let outcome = codegen.generate(&topic(), TIMEOUT, &owned_for(3)).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3), "it did not wait for the answer");
    assert_ownership_lost(&outcome);
    assert_eq!((hanging.calls(), second.calls()), (1, 0));
    assert_eq!(told(&outcome.events), [(&json!("openai"), &json!(false), &Value::Null)]);
}
