//! A crash at every point of every step. Only the sweeper recovers the run, as if each crash also lost the message.

use std::sync::Arc;

use nofx_tests::delivery::{event, worker_on};
use nofx_tests::lab::session;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::db::gate::GateDecision;
use shared::domain::gate::Decision;
use shared::domain::{GateId, RunId, StepId};
use shared::flow::create_run::{Request, create_run};
use shared::flow::decide_gate::decide_gate;
use shared::flow::sweep::sweep;
use shared::worker::Handler;
use tokio::sync::Notify;

/// Where a worker crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CrashPoint {
    /// Before the claim: the wake-up is lost.
    BeforeClaim,
    /// The step is claimed, and nothing is stored.
    AfterClaim,
    /// The artifact is stored, but the outcome is lost.
    BeforeFinish,
    /// The outcome is recorded, but the wake-ups of the children are lost.
    AfterCommit,
    /// Only the acknowledgement is lost: the message is delivered again.
    BeforeAcknowledge,
}

const CRASH_POINTS: [CrashPoint; 5] = [
    CrashPoint::BeforeClaim,
    CrashPoint::AfterClaim,
    CrashPoint::BeforeFinish,
    CrashPoint::AfterCommit,
    CrashPoint::BeforeAcknowledge,
];

const STEPS: [&str; 4] = ["write", "check", "ask", "deploy"];

fn plan() -> Value {
    json!({ "goal": "survive", "steps": [
        plans::step("write", "codegen", json!({})),
        plans::step("check", "echo", json!({ "hash": "${{ steps.write.outputs.artifact_hash }}" })),
        plans::step("ask", "manual:deploy", json!({})),
        plans::step("deploy", "echo", json!({ "hash": "${{ steps.check.outputs.hash }}" })),
    ] })
}

#[tokio::test]
async fn a_crash_at_any_point_of_any_step_does_not_change_the_result() {
    let lab = Lab::with_bucket().await;
    let without_crash = lab.submit(&plan()).await;
    drive(&lab, without_crash, None).await;
    let expected = lab.outcome(without_crash).await;
    assert_eq!(expected["run"]["status"], "succeeded");

    for name in STEPS {
        for point in CRASH_POINTS {
            let run = lab.submit(&plan()).await;
            let step = lab.step(run, name).await;
            drive(&lab, run, Some((step, point))).await;
            assert_eq!(lab.outcome(run).await, expected, "{point:?} of {name}");
            let attempts = &lab.snapshot(run).await["steps"][name]["attempts"];
            let ended = if name == "ask" { "blocked" } else { "succeeded" };
            let crashed = matches!(point, CrashPoint::AfterClaim | CrashPoint::BeforeFinish);
            let history = if crashed { json!(["lost", ended]) } else { json!([ended]) };
            assert_eq!(*attempts, history, "{point:?} of {name}");
            lab.assert_invariants().await;
        }
    }
}

/// Delivers until the run succeeds. Injects one crash, sweeps when no message is left, and approves gates.
async fn drive(lab: &Lab, run: RunId, mut crash: Option<(StepId, CrashPoint)>) {
    for _ in 0..60 {
        for wakeup in lab.sent().await {
            match crash.take_if(|(step, _)| *step == wakeup.step_id) {
                Some((_, point)) => inject_crash(lab, &wakeup, point).await,
                None => deliver(&lab.ctx, &wakeup, &Script::deployed()).await,
            }
        }
        if lab.run_status(run).await == "succeeded" {
            return;
        }
        approve(lab, &lab.ctx, run).await;
        lab.leases_over(run).await;
        lab.wakeups_due(run).await;
        sweep(&lab.ctx).await.unwrap();
    }
    panic!("the run never ends: {}", lab.snapshot(run).await);
}

async fn inject_crash(lab: &Lab, wakeup: &shared::queue::WakeUp, point: CrashPoint) {
    match point {
        CrashPoint::BeforeClaim => {}
        CrashPoint::AfterClaim => crash_in_handler(lab, wakeup, false).await,
        CrashPoint::BeforeFinish => crash_in_handler(lab, wakeup, true).await,
        CrashPoint::AfterCommit => deliver(&lab.ctx_without_queues().await, wakeup, &Script::deployed()).await,
        CrashPoint::BeforeAcknowledge => {
            for _ in 0..2 {
                deliver(&lab.ctx, wakeup, &Script::deployed()).await;
            }
        }
    }
}

/// The process crashes in the handler, before or after its work.
async fn crash_in_handler(lab: &Lab, wakeup: &shared::queue::WakeUp, after_work: bool) {
    let started = Arc::new(Notify::new());
    let signal = started.clone();
    let script = Script::new(move |step, store| {
        let signal = signal.clone();
        async move {
            if after_work {
                Script::deployed().handle(&step, &store).await;
            }
            signal.notify_one();
            futures::future::pending().await
        }
    });
    tokio::select! {
        () = deliver(&lab.ctx, wakeup, &script) => panic!("the handler must not finish"),
        () = started.notified() => {}
    }
    assert_eq!(lab.step_status(wakeup.step_id).await, "running");
    lab.assert_invariants().await;
}

async fn deliver(ctx: &shared::context::Ctx, wakeup: &shared::queue::WakeUp, script: &Script) {
    let batch = event(std::slice::from_ref(wakeup), Deliver::Once);
    let response = worker_on(ctx, &wakeup.handler, script).handle_batch(batch, None).await;
    assert!(response.batch_item_failures.is_empty());
}

async fn approve(lab: &Lab, ctx: &shared::context::Ctx, run: RunId) {
    let sql = "select id from nofx.gate where run_id = $1 and status = 'pending'";
    for row in lab.admin.query(sql, &[&run.0]).await.unwrap() {
        let decision = GateDecision {
            gate_id: GateId(row.get(0)),
            decision: Decision::Approve,
            actor: "ann",
            reason: None,
            seen: None,
        };
        decide_gate(ctx, &session(&ctx.db, &lab.tenant), &decision).await.unwrap();
    }
}

#[tokio::test]
async fn a_run_whose_first_wakeups_were_lost_is_accepted_and_succeeds() {
    let lab = Lab::new().await;
    let without_queues = lab.ctx_without_queues().await;
    let body = json!({ "plan": plans::wide(3) });
    let request = Request { body: &body, idempotency_key: None, traceparent: None, actor: None };
    let run = create_run(&without_queues, &session(&without_queues.db, &lab.tenant), &request)
        .await
        .expect("a run is accepted while the queue is down")
        .id;
    assert!(lab.sent().await.is_empty());
    assert_eq!(sweep(&lab.ctx).await.unwrap().wakeups_sent, 0, "no wake-up is due within the first minute");
    lab.wakeups_due(run).await;
    assert_eq!(sweep(&lab.ctx).await.unwrap().wakeups_sent, 3);
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn a_decision_whose_wakeup_was_lost_counts_and_the_next_step_starts() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::approval(3_600)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    approve(&lab, &lab.ctx_without_queues().await, run).await;
    assert_eq!(lab.step_status(lab.step(run, "deploy").await).await, "ready");
    lab.wakeups_due(run).await;
    sweep(&lab.ctx).await.unwrap();
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn a_redelivery_after_the_lease_takes_over_the_step_without_the_sweeper() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(1)).await;
    let sent = lab.sent().await;
    crash_in_handler(&lab, &sent[0], false).await;
    deliver(&lab.ctx, &sent[0], &Script::deployed()).await;
    assert_eq!(lab.run_status(run).await, "running", "its lease protects it");
    lab.lease_over(sent[0].step_id).await;
    deliver(&lab.ctx, &sent[0], &Script::deployed()).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn a_step_survives_three_lost_workers_and_fails_with_the_fourth() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(2)).await;
    let step = lab.step(run, "s0").await;
    for lost in 1..=4 {
        let sent = lab.sent().await;
        assert_eq!(sent.len(), 1, "woken for attempt {lost}");
        crash_in_handler(&lab, &sent[0], false).await;
        assert_eq!(sweep(&lab.ctx).await.unwrap().leases_ended, 0, "the sweeper leaves a valid lease alone");
        lab.lease_over(step).await;
        sweep(&lab.ctx).await.unwrap();
        assert_eq!(lab.step_status(step).await, if lost < 4 { "ready" } else { "failed" });
    }
    let snapshot = lab.snapshot(run).await;
    assert_eq!(snapshot["run"]["status"], "failed");
    assert_eq!(
        (&snapshot["steps"]["s0"]["error"], &snapshot["steps"]["s0"]["failures"]),
        (&json!("worker_lost"), &json!(0))
    );
    assert_eq!(snapshot["steps"]["s1"]["status"], "skipped");
    assert!(lab.sent().await.is_empty());
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_worker_lost_in_a_paused_run_is_replaced_only_after_resume() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(1)).await;
    let sent = lab.sent().await;
    crash_in_handler(&lab, &sent[0], false).await;
    let pause = shared::db::run::Control::Pause;
    shared::flow::control_run::control_run(&lab.ctx, &session(&lab.ctx.db, &lab.tenant), run, pause, "ann")
        .await
        .unwrap();
    lab.leases_over(run).await;
    lab.wakeups_due(run).await;
    sweep(&lab.ctx).await.unwrap();
    deliver(&lab.ctx, &sent[0], &Script::deployed()).await;
    assert_eq!((lab.run_status(run).await, lab.sent().await), ("paused".into(), Vec::new()));
    lab.assert_invariants().await;
    let resume = shared::db::run::Control::Resume;
    shared::flow::control_run::control_run(&lab.ctx, &session(&lab.ctx.db, &lab.tenant), run, resume, "ann")
        .await
        .unwrap();
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
}
