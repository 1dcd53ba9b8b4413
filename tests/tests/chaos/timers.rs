//! Every state that could last forever has a time limit.

use std::time::Duration;

use nofx_tests::delivery::event;
use nofx_tests::lab::session;
use nofx_tests::script::succeeded;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::json;
use shared::db::gate::GateDecision;
use shared::domain::gate::Decision;
use shared::domain::{GateId, RunId};
use shared::error::Error;
use shared::flow::decide_gate::decide_gate;
use shared::flow::sweep::sweep;
use shared::view::Gate;

#[tokio::test]
async fn an_unclaimed_step_is_woken_at_growing_intervals_and_then_fails() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(2)).await;
    let step = lab.step(run, "s0").await;
    lab.sent().await;
    let mut intervals_min = Vec::new();
    for wakeup in 1..=20 {
        lab.wakeups_due(run).await;
        assert_eq!(sweep(&lab.ctx).await.unwrap().wakeups_sent, 1, "wake-up {wakeup}");
        assert_eq!(lab.sent().await.len(), 1);
        let sql =
            "select round(extract(epoch from notify_at - clock_timestamp()) / 60)::int from nofx.step where id = $1";
        intervals_min.push(lab.admin.query_one(sql, &[&step.0]).await.unwrap().get::<_, i32>(0));
    }
    assert_eq!(intervals_min[..6], [1, 2, 4, 8, 15, 15]);
    lab.wakeups_due(run).await;
    sweep(&lab.ctx).await.unwrap();
    let snapshot = lab.snapshot(run).await;
    assert_eq!(snapshot["run"]["status"], "failed");
    assert_eq!(snapshot["steps"]["s0"]["error"], "undeliverable");
    assert_eq!(snapshot["steps"]["s1"]["status"], "skipped");
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_run_past_its_deadline_fails_and_fences_running_steps() {
    let lab = Lab::new().await;
    let mut plan = plans::chain(3);
    plan["timeout_s"] = json!(60);
    let run = lab.submit(&plan).await;
    let worker = lab.worker("echo", &Script::deployed());
    // Too little time for the second step in this invocation.
    worker.handle_batch(event(&lab.sent().await, Deliver::Once), Some(Duration::from_secs(10))).await;
    let sent = lab.sent().await;
    let ctx = lab.another_ctx().await;
    assert_eq!(sweep(&ctx).await.unwrap().runs_timed_out, 0, "the deadline has not passed");
    // The deadline passes during the second step.
    let (started, proceed) =
        (std::sync::Arc::new(tokio::sync::Notify::new()), std::sync::Arc::new(tokio::sync::Notify::new()));
    let (signal, wait) = (started.clone(), proceed.clone());
    let script = Script::new(move |_, _| {
        let (signal, wait) = (signal.clone(), wait.clone());
        async move {
            signal.notify_one();
            wait.notified().await;
            succeeded(json!({ "late": true }))
        }
    });
    let late = lab.worker("echo", &script);
    let batch = tokio::spawn(async move { late.handle_batch(event(&sent, Deliver::Once), None).await });
    started.notified().await;
    lab.deadline_over(run).await;
    assert_eq!(sweep(&ctx).await.unwrap().runs_timed_out, 1);
    assert_eq!(sweep(&ctx).await.unwrap().runs_timed_out, 0, "a run times out once");
    let before = lab.everything(run).await;
    proceed.notify_one();
    batch.await.unwrap();
    lab.assert_unchanged(run, &before).await;
    let snapshot = lab.snapshot(run).await;
    assert_eq!(
        (&snapshot["run"]["status"], &snapshot["run"]["failure"]["code"]),
        (&json!("failed"), &json!("run_timeout"))
    );
    let status = |name: &str| snapshot["steps"][name]["status"].clone();
    assert_eq!([status("s0"), status("s1"), status("s2")], ["succeeded", "cancelled", "cancelled"]);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn an_undecided_gate_expires_and_fails_its_step() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::approval(3_600)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(sweep(&lab.ctx).await.unwrap().gates_expired, 0, "the gate has not expired");
    lab.gates_due(run).await;

    // The gate has expired, although no sweeper has run yet.
    assert!(matches!(approve(&lab, run).await, Err(Error::Conflict(..))));
    assert_eq!(lab.run_status(run).await, "blocked");
    assert_eq!(sweep(&lab.ctx).await.unwrap().gates_expired, 1);
    let snapshot = lab.snapshot(run).await;
    assert_eq!(snapshot["run"]["status"], "failed");
    assert_eq!(snapshot["steps"]["ask"]["error"], "gate_expired");
    assert_eq!(snapshot["steps"]["ask"]["gates"][0]["status"], "expired");
    assert_eq!(snapshot["steps"]["deploy"]["status"], "skipped");
    assert!(matches!(approve(&lab, run).await, Err(Error::Conflict(..))));
    lab.assert_invariants().await;
}

async fn approve(lab: &Lab, run: RunId) -> Result<Gate, Error> {
    let row = lab.admin.query_one("select id from nofx.gate where run_id = $1", &[&run.0]).await.unwrap();
    let decision = GateDecision {
        gate_id: GateId(row.get(0)),
        decision: Decision::Approve,
        actor: "ann",
        reason: None,
        seen: None,
    };
    decide_gate(&lab.ctx, &lab.session(), &decision).await
}

#[tokio::test]
async fn a_paused_run_is_not_woken_but_still_times_out() {
    let lab = Lab::new().await;
    let mut plan = plans::chain(1);
    plan["timeout_s"] = json!(60);
    let run = lab.submit(&plan).await;
    lab.sent().await;
    let pause = shared::db::run::Control::Pause;
    shared::flow::control_run::control_run(&lab.ctx, &session(&lab.ctx.db, &lab.tenant), run, pause, "ann")
        .await
        .unwrap();
    lab.wakeups_due(run).await;
    sweep(&lab.ctx).await.unwrap();
    assert!(lab.sent().await.is_empty());
    lab.deadline_over(run).await;
    sweep(&lab.ctx).await.unwrap();
    assert_eq!(lab.run_status(run).await, "failed");
    lab.assert_invariants().await;
}
