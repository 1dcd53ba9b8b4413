//! Pause, resume, cancel and retry with steps in every state, and gates that `POST /gates` creates.

use std::time::Duration;

use nofx_tests::delivery::event;
use nofx_tests::lab::session;
use nofx_tests::script::{broken, succeeded};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::json;
use shared::db::gate::{self, AlreadyStarted, GateCreated, GateDecision, GateRequest};
use shared::db::run::Control;
use shared::domain::gate::Decision;
use shared::domain::{GateId, GateStatus, RunId, StepId, StepStatus};
use shared::error::Error;
use shared::flow::control_run::control_run;
use shared::flow::decide_gate::decide_gate;
use shared::view::{Changed, Gate, RunChange};
use uuid::Uuid;

async fn control(lab: &Lab, run: RunId, control: Control) -> Result<RunChange, Error> {
    control_run(&lab.ctx, &session(&lab.ctx.db, &lab.tenant), run, control, "ann").await
}

/// A handler that controls its run during this step.
fn control_during(lab: &Lab, of_step: &'static str, what: Control) -> Script {
    let (ctx, tenant) = (lab.ctx.clone(), lab.tenant.clone());
    Script::overriding(move |step, _| {
        let (ctx, tenant) = (ctx.clone(), tenant.clone());
        async move {
            if step.name == of_step && step.attempt == 1 {
                control_run(&ctx, &session(&ctx.db, &tenant), step.run_id, what, "ann").await.unwrap();
            }
            None
        }
    })
}

async fn gate_on(lab: &Lab, run: RunId, step: Option<StepId>) -> (GateId, GateCreated) {
    let request = GateRequest {
        id: GateId(Uuid::new_v4()),
        run_id: run,
        step_id: step,
        gate_type: "manual:budget".into(),
        evidence_uri: None,
        reason: None,
        expires_after_s: None,
    };
    (request.id, gate::gate_create(&lab.session(), &request).await.unwrap())
}

async fn decide(lab: &Lab, gate_id: GateId, decision: Decision) -> Result<Gate, Error> {
    let decision = GateDecision { gate_id, decision, actor: "ann", reason: Some("because"), seen: None };
    decide_gate(&lab.ctx, &lab.session(), &decision).await
}

#[tokio::test]
async fn pause_lets_the_running_step_finish_and_starts_no_other() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(3)).await;
    lab.settle(&control_during(&lab, "s0", Control::Pause), Deliver::Thrice).await;
    let snapshot = lab.snapshot(run).await;
    assert_eq!(snapshot["run"]["status"], "paused");
    assert_eq!(snapshot["steps"]["s0"]["status"], "succeeded");
    assert_eq!(snapshot["steps"]["s1"]["status"], "ready");
    lab.assert_invariants().await;

    // A wake-up in flight claims nothing.
    let stray = shared::queue::WakeUp {
        tenant_id: lab.tenant.clone(),
        run_id: run,
        step_id: lab.step(run, "s1").await,
        handler: "echo".into(),
        delay_ms: 0,
        traceparent: None,
    };
    let before = lab.everything(run).await;
    lab.worker("echo", &Script::deployed()).handle_batch(event(&[stray], Deliver::Once), None).await;
    lab.assert_unchanged(run, &before).await;

    control(&lab, run, Control::Resume).await.unwrap();
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn pause_and_resume_do_not_change_the_result() {
    let lab = Lab::new().await;
    let without_pause = lab.submit(&plans::diamond(3)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let run = lab.submit(&plans::diamond(3)).await;
    control(&lab, run, Control::Pause).await.unwrap();
    assert_eq!(control(&lab, run, Control::Pause).await.unwrap().result, Changed::Unchanged);
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "paused");
    control(&lab, run, Control::Resume).await.unwrap();
    assert_eq!(control(&lab, run, Control::Resume).await.unwrap().result, Changed::Unchanged);
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.snapshot(run).await, lab.snapshot(without_pause).await);
}

#[tokio::test]
async fn cancel_fences_the_running_step() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(3)).await;
    lab.settle(&control_during(&lab, "s1", Control::Cancel), Deliver::Thrice).await;
    let snapshot = lab.snapshot(run).await;
    assert_eq!(snapshot["run"]["status"], "cancelled");
    let status = |name: &str| snapshot["steps"][name]["status"].clone();
    assert_eq!([status("s0"), status("s1"), status("s2")], ["succeeded", "cancelled", "cancelled"]);
    assert_eq!(snapshot["steps"]["s1"]["attempts"], json!(["cancelled"]), "its own finish was too late");
    assert_eq!(snapshot["steps"]["s1"]["outputs"], json!(null));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn cancel_returns_the_stopped_and_the_running_steps() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::diamond(2)).await;
    let sent = lab.sent().await;
    let (ctx, tenant) = (lab.ctx.clone(), lab.tenant.clone());
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = std::sync::Arc::new(std::sync::Mutex::new(Some(sender)));
    let script = Script::new(move |step, _| {
        let (ctx, tenant, sender) = (ctx.clone(), tenant.clone(), sender.clone());
        async move {
            let answer =
                control_run(&ctx, &session(&ctx.db, &tenant), step.run_id, Control::Cancel, "ann").await.unwrap();
            sender.lock().unwrap().take().unwrap().send(answer).unwrap();
            succeeded(json!({}))
        }
    });
    lab.worker("echo", &script).handle_batch(event(&sent, Deliver::Once), None).await;
    let change = receiver.await.unwrap();
    assert_eq!(change.result, Changed::Cancelled);
    assert_eq!(change.stopped.unwrap(), ["m0", "m1", "join"]);
    assert_eq!(change.was_running.unwrap(), ["root"]);
    assert_eq!(control(&lab, run, Control::Cancel).await.unwrap().result, Changed::Unchanged);
    let late = control(&lab, run, Control::Pause).await;
    assert!(matches!(late, Err(Error::Conflict(..))), "{late:?}");
}

#[tokio::test]
async fn a_run_of_another_tenant_cannot_be_found_or_controlled() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let before = lab.everything(run).await;
    let mallory = shared::domain::TenantId("other".into());
    for what in [Control::Cancel, Control::Pause, Control::Resume, Control::Retry] {
        let answer = control_run(&lab.ctx, &session(&lab.ctx.db, &mallory), run, what, "mallory").await;
        assert!(matches!(answer, Err(Error::NotFound(_))), "{what:?}: {answer:?}");
    }
    lab.assert_unchanged(run, &before).await;
}

#[tokio::test]
async fn an_unknown_result_of_a_transition_is_an_error() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    for answer in
        [r#"{"result": "unknown", "status": "running"}"#, r#"{"result": "paused", "status": "unknown"}"#, "{}"]
    {
        let sql = format!(
            "create or replace function nofx.run_pause(p jsonb) returns jsonb language sql as $$ select '{answer}'::jsonb $$"
        );
        lab.admin.batch_execute(&sql).await.unwrap();
        let paused = control(&lab, run, Control::Pause).await;
        assert!(matches!(paused, Err(Error::Internal { .. })), "{answer}: {paused:?}");
    }
}

#[tokio::test]
async fn a_retry_keeps_succeeded_steps_and_continues_attempt_numbers() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(3)).await;
    let failing = Script::overriding(|step, _| async move { (step.name == "s1").then(broken) });
    lab.settle(&failing, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "failed");
    let answer = control(&lab, run, Control::Retry).await.unwrap();
    assert_eq!((answer.result, answer.generation), (Changed::Retried, Some(2)));
    assert_eq!(lab.snapshot(run).await["steps"]["s1"]["failures"], 0, "failures are counted from 0 again");
    lab.assert_invariants().await;
    lab.settle(&Script::deployed(), Deliver::Thrice).await;
    let snapshot = lab.snapshot(run).await;
    assert_eq!(snapshot["run"], json!({ "status": "succeeded", "generation": 2, "failure": null }));
    let attempts = |name: &str| snapshot["steps"][name]["attempts"].clone();
    assert_eq!(attempts("s0"), json!(["succeeded"]), "the step does not run again");
    assert_eq!(attempts("s1"), json!(["failed", "succeeded"]));
    assert_eq!(attempts("s2"), json!(["succeeded"]));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_retry_creates_a_new_manual_gate() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::approval(3_600)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let first = pending_gate(&lab, run).await;
    decide(&lab, first, Decision::Reject).await.unwrap();
    let snapshot = lab.snapshot(run).await;
    assert_eq!(
        (&snapshot["run"]["status"], &snapshot["steps"]["ask"]["error"]),
        (&json!("failed"), &json!("gate_rejected"))
    );
    assert_eq!(snapshot["steps"]["deploy"]["status"], "skipped");

    control(&lab, run, Control::Retry).await.unwrap();
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let second = pending_gate(&lab, run).await;
    assert_ne!(first, second);
    assert!(
        matches!(decide(&lab, first, Decision::Approve).await, Err(Error::Conflict(..))),
        "the old gate is decided"
    );
    decide(&lab, second, Decision::Approve).await.unwrap();
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    lab.assert_invariants().await;
}

async fn pending_gate(lab: &Lab, run: RunId) -> GateId {
    let sql = "select id from nofx.gate where run_id = $1 and status = 'pending'";
    GateId(lab.admin.query_one(sql, &[&run.0]).await.expect("one pending gate").get(0))
}

#[tokio::test]
async fn only_failed_and_cancelled_runs_can_be_retried() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(1)).await;
    assert!(matches!(control(&lab, run, Control::Retry).await, Err(Error::Conflict(..))));
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    assert!(matches!(control(&lab, run, Control::Retry).await, Err(Error::Conflict(..))));
}

#[tokio::test]
async fn a_gate_before_a_woken_step_prevents_its_claim() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let step = lab.step(run, "s0").await;
    let (gate, created) = gate_on(&lab, run, Some(step)).await;
    assert_eq!(created, GateCreated::Created);
    // Its wake-up is already in flight.
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!((lab.step_status(step).await, lab.run_status(run).await), ("pending".into(), "blocked".into()));
    decide(&lab, gate, Decision::Waive).await.unwrap();
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn a_pending_gate_of_the_run_prevents_its_success() {
    let lab = Lab::new().await;
    for (decision, end) in [(Decision::Approve, "succeeded"), (Decision::Reject, "failed")] {
        let run = lab.submit(&plans::wide(1)).await;
        let (gate, _) = gate_on(&lab, run, None).await;
        lab.settle(&Script::deployed(), Deliver::Once).await;
        assert_eq!(lab.run_status(run).await, "blocked");
        decide(&lab, gate, decision).await.unwrap();
        assert_eq!(lab.run_status(run).await, end);
        let (_, late) = gate_on(&lab, run, None).await;
        assert!(matches!(late, GateCreated::Conflict(AlreadyStarted::Run { .. })), "{late:?}");
    }
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_gate_cannot_be_created_before_a_started_step() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(2)).await;
    let first = lab.step(run, "s0").await;
    // Too little time for the second step in this invocation.
    let remaining = Some(Duration::from_secs(10));
    lab.worker("echo", &Script::deployed()).handle_batch(event(&lab.sent().await, Deliver::Once), remaining).await;
    let (_, created) = gate_on(&lab, run, Some(first)).await;
    let started = AlreadyStarted::Step { status: StepStatus::Succeeded };
    assert_eq!(created, GateCreated::Conflict(started));
}

#[tokio::test]
async fn a_decided_gate_cannot_be_decided_again() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::approval(3_600)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let gate = pending_gate(&lab, run).await;
    let decided = decide(&lab, gate, Decision::Approve).await.unwrap();
    assert_eq!((decided.status, decided.approved_by.as_deref()), (GateStatus::Passed, Some("ann")));
    let before = lab.everything(run).await;
    for decision in [Decision::Approve, Decision::Reject, Decision::Waive] {
        assert!(matches!(decide(&lab, gate, decision).await, Err(Error::Conflict(..))));
    }
    lab.assert_unchanged(run, &before).await;
}

#[tokio::test]
async fn deleting_a_run_deletes_all_its_rows_and_no_others() {
    let lab = Lab::new().await;
    let (deleted, other) = (lab.submit(&plans::approval(3_600)).await, lab.submit(&plans::diamond(3)).await);
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let before = lab.everything(other).await;
    let rows = "select (select count(*) from nofx.step) + (select count(*) from nofx.step_edge)
                     + (select count(*) from nofx.attempt) + (select count(*) from nofx.event)
                     + (select count(*) from nofx.gate)";
    let count = async || lab.admin.query_one(rows, &[]).await.unwrap().get::<_, i64>(0);
    let all = count().await;
    lab.admin.execute("delete from nofx.run where id = $1", &[&deleted.0]).await.unwrap();
    lab.assert_unchanged(other, &before).await;
    lab.assert_invariants().await;
    assert!(count().await < all);
    lab.admin.execute("delete from nofx.run", &[]).await.unwrap();
    assert_eq!(count().await, 0);
}
