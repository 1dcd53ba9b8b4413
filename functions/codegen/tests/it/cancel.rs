//! A cancelled step spends no more tokens, and the tokens it spent are recorded.

use std::time::{Duration, Instant};

use codegen::Provider;
use serde_json::json;
use shared::domain::model_call::Charge;
use shared::domain::{Outcome, Verdict};

use crate::support::{FakeProvider, Reply, TIMEOUT, anthropic, codegen, config, openai, openai_error, topic, with};

const TWO: [Provider; 2] = [Provider::OpenAi, Provider::Anthropic];

fn assert_ownership_lost(outcome: &Outcome) {
    let Verdict::Failed { error, retryable, .. } = &outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!((error.code.as_str(), *retryable), ("ownership_lost", false));
}

#[tokio::test]
async fn a_cancelled_step_sends_no_request() {
    let fake = FakeProvider::start(vec![Reply::ok(&openai("x"))]).await;
    let lab = codegen(config(Some(&fake), None, None), &TWO);
    lab.ledger.lose_after(0);
    let outcome = lab.run(topic(), TIMEOUT).await.unwrap_err();
    assert_ownership_lost(&outcome);
    assert_eq!((fake.calls(), lab.ledger.ends().len()), (0, 0));
}

#[tokio::test]
async fn after_a_cancel_there_is_no_retry_and_no_fallback() {
    let half = Reply::ok(&with(openai("half"), "/status", json!("incomplete")));
    for (reply, output_tokens) in [(half, Some(30)), (openai_error(500, "server_error"), None)] {
        let (first, second) =
            (FakeProvider::start(vec![reply]).await, FakeProvider::start(vec![Reply::ok(&anthropic("x"))]).await);
        let lab = codegen(config(Some(&first), Some(&second), None), &TWO);
        // Only the start of the first request succeeds.
        lab.ledger.lose_after(1);
        let outcome = lab.run(topic(), TIMEOUT).await.unwrap_err();
        assert_ownership_lost(&outcome);
        assert_eq!((first.calls(), second.calls()), (1, 0));
        let [end] = lab.ledger.ends().try_into().unwrap();
        assert_eq!(end.usage.and_then(|usage| usage.output_tokens), output_tokens, "it is settled anyway");
    }
}

#[tokio::test]
async fn a_cancel_aborts_the_request_in_flight_and_charges_its_ceiling() {
    let hanging = FakeProvider::start(vec![Reply::ok(&openai("late")).after(Duration::from_mins(1))]).await;
    let second = FakeProvider::start(vec![Reply::ok(&anthropic("x"))]).await;
    let lab = codegen(config(Some(&hanging), Some(&second), None), &TWO);
    lab.ledger.lose_after(3);
    let started = Instant::now();
    let outcome = lab.run(topic(), TIMEOUT).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3), "it must not wait for the answer");
    assert_ownership_lost(&outcome);
    assert_eq!((hanging.calls(), second.calls()), (1, 0));
    let [end] = lab.ledger.ends().try_into().unwrap();
    assert_eq!((end.charge, end.usage, end.fault.unwrap().kind.as_str()), (Charge::Ceiling, None, "stopped"));
    assert!(end.cooldown.is_none(), "the provider may be healthy");
}
