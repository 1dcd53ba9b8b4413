//! Messages that arrive more than once, early, late, out of order or malformed.

use std::collections::HashSet;

use nofx_tests::delivery::{body, event, event_of, failed_ids};
use nofx_tests::lab::session;
use nofx_tests::script::succeeded;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::db::gate::{GateDecision, gate_list_of_run};
use shared::domain::gate::Decision;
use shared::domain::{RunId, TenantId};
use shared::flow::decide_gate::decide_gate;
use uuid::Uuid;

/// Runs the plan to its end, approves its gates, and returns the snapshot.
async fn run_to_end(lab: &Lab, plan: &Value, deliver: Deliver) -> Value {
    let run = lab.submit(plan).await;
    let script = Script::deployed();
    lab.settle(&script, deliver).await;
    approve_all(lab, run).await;
    lab.settle(&script, deliver).await;
    lab.assert_invariants().await;
    let snapshot = lab.snapshot(run).await;
    assert_eq!(snapshot["run"]["status"], "succeeded");
    for (name, step) in snapshot["steps"].as_object().unwrap() {
        assert_eq!(step["completed"], 1, "step {name} completes once");
    }
    snapshot
}

async fn approve_all(lab: &Lab, run: RunId) {
    for gate in gate_list_of_run(&session(&lab.ctx.db, &lab.tenant), run, None, 100).await.unwrap().items {
        let decision = Decision::Approve;
        let decision = GateDecision { gate_id: gate.id, decision, actor: "ann", reason: None, seen: None };
        decide_gate(&lab.ctx, &lab.session(), &decision).await.unwrap();
    }
}

#[tokio::test]
async fn every_message_delivered_three_times_gives_the_same_result_as_once() {
    let lab = Lab::with_bucket().await;
    let codegen = json!({ "goal": "write", "steps": [plans::step("write", "codegen", json!({}))] });
    for plan in [plans::chain(5), plans::diamond(12), plans::approval(3_600), codegen] {
        let once = run_to_end(&lab, &plan, Deliver::Once).await;
        let thrice = run_to_end(&lab, &plan, Deliver::Thrice).await;
        assert_eq!(thrice, once);
    }
}

#[tokio::test]
async fn outputs_keep_their_types_along_a_chain() {
    let lab = Lab::new().await;
    let plan = json!({ "goal": "types", "steps": [
        plans::step("a b", "echo", json!({ "n": 7, "list": [1, { "x": null }] })),
        plans::step("c", "echo", json!({
            "whole": "${{ steps[\"a b\"].outputs.list }}", "n": "${{ steps[\"a b\"].outputs.n }}",
            "text": "n is ${{ steps[\"a b\"].outputs.n }}" })),
    ] });
    let run = lab.submit(&plan).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let outputs = &lab.snapshot(run).await["steps"]["c"]["outputs"];
    assert_eq!(*outputs, json!({ "whole": [1, { "x": null }], "n": 7, "text": "n is 7" }));
}

#[tokio::test]
async fn only_the_unreadable_messages_of_a_batch_are_returned() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(2)).await;
    let sent = lab.sent().await;
    let bodies = ["not json".to_owned(), body(&sent[0]), "{\"run_id\":7}".to_owned(), body(&sent[1]), String::new()];
    let response = lab.worker("echo", &Script::deployed()).handle_batch(event_of(bodies), None).await;
    assert_eq!(failed_ids(&response), HashSet::from(["m0".into(), "m2".into(), "m4".into()]));
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn a_batch_of_unreadable_messages_makes_no_round_trip() {
    let lab = Lab::new().await;
    let event = event_of(["[]".to_owned()]);
    let response = lab.worker("echo", &Script::deployed()).handle_batch(event, None).await;
    assert_eq!(failed_ids(&response), HashSet::from(["m0".into()]));
    assert_eq!(lab.ctx.db.round_trips(), 0);
}

#[tokio::test]
async fn a_message_of_another_tenant_claims_nothing() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(2)).await;
    let before = lab.everything(run).await;
    let mut sent = lab.sent().await;
    sent[0].tenant_id = TenantId("mallory".into());
    // A message whose step and run do not match claims nothing either.
    sent[1].run_id = RunId(Uuid::new_v4());
    let worker = lab.worker("echo", &Script::deployed());
    let response = worker.handle_batch(event(&sent, Deliver::Once), None).await;
    assert_eq!(
        failed_ids(&response),
        HashSet::new(),
        "such a message is acknowledged, because a redelivery would not help"
    );
    lab.assert_unchanged(run, &before).await;
}

#[tokio::test]
async fn a_forged_copy_in_the_batch_does_not_affect_the_real_message() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let sent = lab.sent().await;
    for tenant in ["aaaa", "zzzz"] {
        let mut forged = sent[0].clone();
        forged.tenant_id = TenantId(tenant.into());
        let batch = [forged.clone(), sent[0].clone(), forged];
        lab.worker("echo", &Script::deployed()).handle_batch(event(&batch, Deliver::Once), None).await;
    }
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn an_early_message_is_acknowledged_and_claims_nothing() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let sent = lab.sent().await;
    let later = "update nofx.step set ready_at = clock_timestamp() + interval '1 minute' where run_id = $1";
    lab.admin.execute(later, &[&run.0]).await.unwrap();
    let before = lab.everything(run).await;
    let worker = lab.worker("echo", &Script::deployed());
    let response = worker.handle_batch(event(&sent, Deliver::Once), None).await;
    assert_eq!(failed_ids(&response), HashSet::new());
    lab.assert_unchanged(run, &before).await;

    // Half a second early is clock skew, not an early message.
    let soon = "update nofx.step set ready_at = clock_timestamp() + interval '500 ms' where run_id = $1";
    lab.admin.execute(soon, &[&run.0]).await.unwrap();
    worker.handle_batch(event(&sent, Deliver::Once), None).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn a_message_for_a_finished_step_is_acknowledged() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let sent = lab.sent().await;
    let worker = lab.worker("echo", &Script::deployed());
    worker.handle_batch(event(&sent, Deliver::Once), None).await;
    let before = lab.everything(run).await;
    let response = worker.handle_batch(event(&sent, Deliver::Once), None).await;
    assert_eq!(failed_ids(&response), HashSet::new());
    lab.assert_unchanged(run, &before).await;
}

#[tokio::test]
async fn a_message_for_a_running_step_does_not_start_it_again() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let sent = lab.sent().await;
    let (inner, lab_event) = (lab.worker("echo", &Script::deployed()), event(&sent, Deliver::Once));
    // While the handler works, the same message arrives at another instance.
    let outer = Script::new(move |step, _| {
        let (inner, event) = (inner.clone(), lab_event.clone());
        async move {
            let response = inner.handle_batch(event, None).await;
            succeeded(json!({ "by": "first", "returned": response.batch_item_failures.len(), "attempt": step.attempt }))
        }
    });
    lab.worker("echo", &outer).handle_batch(event(&sent, Deliver::Once), None).await;
    let step = &lab.snapshot(run).await["steps"]["s0"];
    assert_eq!(step["outputs"], json!({ "by": "first", "returned": 0, "attempt": 1 }));
    assert_eq!(step["attempts"], json!(["succeeded"]));
}

#[tokio::test]
async fn a_step_takes_two_round_trips_and_so_does_a_batch_of_ten() {
    let lab = Lab::new().await;
    for count in [1, 10] {
        lab.submit(&plans::wide(count)).await;
        let sent = lab.sent().await;
        assert_eq!(sent.len(), count);
        let before = lab.ctx.db.round_trips();
        lab.worker("echo", &Script::deployed()).handle_batch(event(&sent, Deliver::Once), None).await;
        assert_eq!(lab.ctx.db.round_trips() - before, 2, "round trips for {count} steps");
    }
    lab.assert_invariants().await;
}

#[tokio::test]
async fn an_outcome_is_recorded_without_waiting_for_slower_steps() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(2)).await;
    let sent = lab.sent().await;
    let quick = lab.step(run, "s0").await;
    let (proceed, slow) = (std::sync::Arc::new(tokio::sync::Notify::new()), lab.step(run, "s1").await);
    let signal = proceed.clone();
    let script = Script::overriding(move |step, _| {
        let signal = signal.clone();
        async move {
            if step.step_id == slow {
                signal.notified().await;
            }
            None
        }
    });
    let worker = lab.worker("echo", &script);
    let batch = tokio::spawn(async move { worker.handle_batch(event(&sent, Deliver::Once), None).await });
    // The slow step ends only after the quick one is recorded.
    let recorded = format!("select status = 'succeeded' from nofx.step where id = '{quick}'");
    lab.until("the end of the quick step", &recorded).await;
    assert_eq!(lab.step_status(slow).await, "running");
    proceed.notify_one();
    batch.await.unwrap();
    assert_eq!(lab.run_status(run).await, "succeeded");
}
