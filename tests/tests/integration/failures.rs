//! Handlers that fail, panic or hang, and references to missing values.

use std::time::Duration;

use nofx_tests::delivery::event;
use nofx_tests::lab::session;
use nofx_tests::script::{broken, flaky, succeeded};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::json;
use shared::db::step_view::step_fetch;
use shared::domain::{Outcome, StepError, StepStatus, Verdict};
use shared::error::Error;
use shared::flow::create_run::{Request, create_run};

#[tokio::test]
async fn a_flaky_step_is_retried_up_to_its_maximum_of_attempts() {
    let lab = Lab::new().await;
    for (good_attempt, status) in [(3, "succeeded"), (4, "failed")] {
        let run = lab.submit(&plans::chain(2)).await;
        let script =
            Script::overriding(
                move |step, _| async move { (step.name == "s0" && step.attempt < good_attempt).then(flaky) },
            );
        lab.settle(&script, Deliver::Thrice).await;
        let snapshot = lab.snapshot(run).await;
        assert_eq!(snapshot["run"]["status"], status);
        assert_eq!(snapshot["steps"]["s0"]["attempt"], 3, "the default of three attempts");
        lab.assert_invariants().await;
    }
}

#[tokio::test]
async fn retry_delays_double_and_are_in_the_wakeup_and_the_row() {
    let lab = Lab::new().await;
    let mut plan = plans::wide(1);
    plan["steps"][0]["retry"] = json!({ "max_attempts": 4, "backoff_ms": 8_000 });
    lab.submit(&plan).await;
    let worker = lab.worker("echo", &Script::new(|_, _| async { flaky() }));
    for (min, max) in [(4_000, 8_000), (8_000, 16_000), (16_000, 32_000)] {
        let sent = lab.sent().await;
        lab.delay_over(sent[0].step_id).await;
        worker.handle_batch(event(&sent, Deliver::Once), None).await;
        let woken = lab.sent().await;
        assert!((min..=max).contains(&woken[0].delay_ms), "{} ms", woken[0].delay_ms);
        let sql = "select (extract(epoch from ready_at - clock_timestamp()) * 1000)::bigint, notify_at > ready_at
                     from nofx.step where id = $1";
        let row = lab.admin.query_one(sql, &[&woken[0].step_id.0]).await.unwrap();
        let (to_ready, delay): (i64, i64) = (row.get(0), woken[0].delay_ms.try_into().unwrap());
        assert!(to_ready <= delay && to_ready > delay - 4_000, "the row agrees with the wake-up");
        assert!(row.get::<_, bool>(1), "the sweeper does not wake it before the delay ends");
        lab.ctx.queue.send(woken).await.unwrap();
    }
}

#[tokio::test]
async fn a_final_failure_skips_unstarted_steps_and_records_running_ones() {
    let lab = Lab::new().await;
    let plan = json!({ "goal": "g", "steps": [
        plans::after("bad", &[], json!({})),
        plans::after("good", &[], json!({})),
        plans::after("after bad", &["bad"], json!({})),
        plans::after("after good", &["good"], json!({})),
    ] });
    let run = lab.submit(&plan).await;
    let sent = lab.sent().await;
    let watched = lab.another_ctx().await;
    // The good step ends only after the bad one is recorded as failed.
    let script = Script::new(move |step, _| {
        let (db, tenant) = (watched.db.clone(), watched.config.tenant.clone());
        async move {
            if step.name == "bad" {
                return broken();
            }
            while step_fetch(&session(&db, &tenant), run, "bad").await.unwrap().unwrap().status != StepStatus::Failed {
                tokio::task::yield_now().await;
            }
            succeeded(json!({ "done": true }))
        }
    });
    lab.worker("echo", &script).handle_batch(event(&sent, Deliver::Once), None).await;
    let snapshot = lab.snapshot(run).await;
    let status = |name: &str| snapshot["steps"][name]["status"].clone();
    assert_eq!(snapshot["run"]["status"], "failed");
    assert_eq!([status("bad"), status("good")], ["failed", "succeeded"]);
    assert_eq!([status("after bad"), status("after good")], ["skipped", "skipped"]);
    assert!(lab.sent().await.is_empty(), "no step is woken in a failing run");
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_handler_that_panics_fails_its_attempt_and_not_its_batch() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(3)).await;
    let script = Script::overriding(|step, _| async move {
        assert!(step.name != "s1" || step.attempt > 1, "a defect of the handler");
        None
    });
    lab.settle(&script, Deliver::Once).await;
    let snapshot = lab.snapshot(run).await;
    assert_eq!(snapshot["run"]["status"], "succeeded");
    assert_eq!(snapshot["steps"]["s1"]["attempts"], json!(["failed", "succeeded"]));
    assert_eq!(snapshot["steps"]["s0"]["attempts"], json!(["succeeded"]));
}

#[tokio::test]
async fn a_hanging_handler_is_stopped_at_its_timeout() {
    let lab = Lab::new().await;
    let mut plan = plans::wide(1);
    plan["steps"][0]["retry"] = json!({ "max_attempts": 1 });
    let run = lab.submit(&plan).await;
    let sent = lab.sent().await;
    let script = Script::new(|_, _| futures::future::pending::<Outcome>());
    // Here the invocation's remaining time is the limit. Two seconds of it are reserved to record the outcome.
    let remaining = Duration::from_millis(2_020);
    lab.worker("echo", &script).handle_batch(event(&sent, Deliver::Once), Some(remaining)).await;
    let step = &lab.snapshot(run).await["steps"]["s0"];
    assert_eq!((&step["status"], &step["error"]), (&json!("failed"), &json!("timed_out")));
}

#[tokio::test]
async fn outputs_beyond_the_limit_fail_the_step() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let limit = lab.ctx.config.limits.outputs_bytes;
    let script = Script::new(move |_, _| async move { succeeded(json!({ "text": "x".repeat(limit) })) });
    lab.settle(&script, Deliver::Once).await;
    let step = &lab.snapshot(run).await["steps"]["s0"];
    assert_eq!((&step["status"], &step["error"]), (&json!("failed"), &json!("outputs_too_large")));
    assert_eq!(step["attempt"], 1, "a retry would give the same outputs");
}

#[tokio::test]
async fn a_reference_to_a_missing_output_fails_the_step() {
    let lab = Lab::new().await;
    let plan = json!({ "goal": "g", "steps": [
        plans::step("a", "echo", json!({ "x": 1 })),
        plans::step("b", "echo", json!({ "y": "${{ steps.a.outputs.no_such }}" })),
    ] });
    let run = lab.submit(&plan).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let snapshot = lab.snapshot(run).await;
    assert_eq!(snapshot["run"]["status"], "failed");
    assert_eq!(snapshot["steps"]["b"]["error"], "unresolved_reference");
    assert_eq!(snapshot["steps"]["b"]["attempt"], 1, "a retry would not help");
}

#[tokio::test]
async fn a_text_that_postgres_cannot_store_fails_only_its_step() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(2)).await;
    let script =
        Script::overriding(
            |step, _| async move { (step.name == "s0").then(|| succeeded(json!({ "text": "a\u{0}b" }))) },
        );
    lab.settle(&script, Deliver::Once).await;
    let snapshot = lab.snapshot(run).await;
    assert_eq!(snapshot["steps"]["s1"]["status"], "succeeded", "the other step is recorded");
    assert_eq!(snapshot["steps"]["s0"]["error"], "unrecordable");
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_request_that_postgres_cannot_store_is_invalid() {
    let lab = Lab::new().await;
    let body = json!({ "plan": { "goal": "g", "steps": [plans::step("a", "echo", json!({ "text": "a\u{0}b" }))] } });
    let request = Request { body: &body, idempotency_key: None, traceparent: None, actor: None };
    let answer = create_run(&lab.ctx, &session(&lab.ctx.db, &lab.tenant), &request).await;
    assert!(matches!(answer, Err(Error::Invalid(_))), "{answer:?}");
}

#[tokio::test]
async fn a_requested_wait_is_the_minimum_of_the_retry_delay() {
    let lab = Lab::new().await;
    lab.submit(&plans::wide(1)).await;
    let sent = lab.sent().await;
    let script = Script::new(|_, _| async {
        let mut outcome = Outcome::retryable(StepError::new("busy", "later"));
        outcome.verdict = match outcome.verdict {
            Verdict::Failed { error, retryable, .. } => {
                Verdict::Failed { error, retryable, retry_after: Some(Duration::from_mins(2)) }
            }
            other => other,
        };
        outcome
    });
    lab.worker("echo", &script).handle_batch(event(&sent, Deliver::Once), None).await;
    let woken = lab.sent().await;
    assert!((119_000..=120_000).contains(&woken[0].delay_ms), "{} ms", woken[0].delay_ms);
}
