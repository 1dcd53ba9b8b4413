//! An invocation continues with steps that its own steps made ready, within its limits.

use std::time::Duration;

use nofx_tests::delivery::event;
use nofx_tests::lab::session;
use nofx_tests::script::{broken, succeeded};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::db::run::Control;
use shared::db::step::{self, ClaimItem, Continuation, FinishItem, FinishResult, FinishTo};
use shared::domain::RunId;
use shared::flow::control_run::control_run;
use shared::flow::finish_step::finish_item;
use uuid::Uuid;

/// Too little time for another echo step, whose timeout is 20 s.
const TOO_LITTLE_TIME: Duration = Duration::from_secs(22);

/// Delivers all sent wake-ups to one invocation of echo.
async fn invoke(lab: &Lab, script: &Script, remaining: Option<Duration>) {
    let sent = lab.sent().await;
    let response = lab.worker("echo", script).handle_batch(event(&sent, Deliver::Once), remaining).await;
    assert!(response.batch_item_failures.is_empty());
}

/// Names of the steps that were woken.
async fn woken(lab: &Lab) -> Vec<String> {
    let mut names = Vec::new();
    for wakeup in lab.sent().await {
        names.push(lab.text("select name from nofx.step where id = $1", wakeup.step_id.0).await);
    }
    names.sort();
    names
}

#[tokio::test]
async fn a_chain_of_one_handler_takes_one_message_and_one_round_trip_per_step() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(5)).await;
    let before = lab.ctx.db.round_trips();
    invoke(&lab, &Script::deployed(), None).await;
    assert_eq!(lab.ctx.db.round_trips() - before, 1 + 5);
    assert_eq!(woken(&lab).await, [""; 0]);
    let snapshot = lab.snapshot(run).await;
    assert_eq!(snapshot["run"]["status"], "succeeded");
    assert_eq!(snapshot["steps"]["s4"]["outputs"]["said"], "hello");
    assert_eq!(snapshot["steps"]["s4"]["attempts"], json!(["succeeded"]));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn an_invocation_continues_with_one_step_per_success_and_wakes_the_others() {
    let lab = Lab::new().await;
    lab.submit(&plans::diamond(3)).await;
    let script = Script::deployed();
    invoke(&lab, &script, None).await;
    // The invocation continued with one of the root's three children.
    assert_eq!(woken(&lab).await, ["m1", "m2"]);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_step_of_another_handler_is_woken() {
    let lab = Lab::new().await;
    lab.submit(&plans::approval(3_600)).await;
    invoke(&lab, &Script::deployed(), None).await;
    assert_eq!(woken(&lab).await, ["ask"]);
}

#[tokio::test]
async fn a_step_that_no_longer_fits_into_the_invocation_is_woken() {
    let lab = Lab::new().await;
    lab.submit(&plans::chain(2)).await;
    invoke(&lab, &Script::deployed(), Some(TOO_LITTLE_TIME)).await;
    assert_eq!(woken(&lab).await, ["s1"]);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_step_with_a_short_timeout_still_fits() {
    let lab = Lab::new().await;
    let mut plan = plans::chain(2);
    plan["steps"][1]["timeout_s"] = json!(5);
    let run = lab.submit(&plan).await;
    invoke(&lab, &Script::deployed(), Some(TOO_LITTLE_TIME)).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn an_invocation_does_not_continue_a_paused_run() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(2)).await;
    let (ctx, tenant) = (lab.ctx.clone(), lab.tenant.clone());
    let script = Script::overriding(move |step, _| {
        let (ctx, tenant) = (ctx.clone(), tenant.clone());
        async move {
            control_run(&ctx, &session(&ctx.db, &tenant), step.run_id, Control::Pause, "ann").await.unwrap();
            None
        }
    });
    invoke(&lab, &script, None).await;
    assert_eq!(lab.run_status(run).await, "paused");
    assert_eq!(lab.snapshot(run).await["steps"]["s1"]["status"], "ready");
    assert_eq!(woken(&lab).await, [""; 0]);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_failure_in_another_branch_stops_the_continuation() {
    let lab = Lab::new().await;
    let run = lab
        .submit(&json!({ "goal": "two branches", "steps": [
            plans::after("good", &[], json!({})),
            plans::after("bad", &[], json!({})),
            plans::after("next", &["good"], json!({})),
        ] }))
        .await;
    let script = Script::new(|step, _| async move { if step.name == "bad" { broken() } else { succeeded(json!({})) } });
    invoke(&lab, &script, None).await;
    let snapshot = lab.snapshot(run).await;
    assert_eq!(
        (&snapshot["run"]["status"], &snapshot["steps"]["next"]["status"]),
        (&json!("failed"), &json!("skipped"))
    );
    assert_eq!(snapshot["steps"]["next"]["attempts"], json!([]));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_retried_finish_gets_the_steps_that_the_first_call_claimed() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(3)).await;
    let items = [done(&lab, run, "s0").await];
    let next = continuation();
    let first = step::steps_finish(&lab.ctx.db, &items, Some(&next)).await.unwrap();
    let before = lab.everything(run).await;
    let again = step::steps_finish(&lab.ctx.db, &items, Some(&next)).await.unwrap();
    assert_eq!(again.items[0].result, FinishResult::Repeated);
    assert_eq!((first.claimed.len(), again.claimed.len()), (1, 1));
    assert_eq!(
        (first.claimed[0].step_id, first.claimed[0].attempt),
        (again.claimed[0].step_id, again.claimed[0].attempt)
    );
    assert!(again.ready.is_empty(), "a worker has claimed it");
    // Another call that repeats the finish must not get a step that has an owner.
    let other = step::steps_finish(&lab.ctx.db, &items, Some(&continuation())).await.unwrap();
    assert!(other.claimed.is_empty());
    lab.assert_unchanged(run, &before).await;
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_retried_claim_gets_the_steps_that_the_first_call_claimed() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let item = json!({ "tenant_id": lab.tenant, "run_id": run, "step_id": lab.step(run, "s0").await, "lease_s": 30 });
    // Two messages for one step: it is claimed once and returned once.
    let items = json!([item, item]);
    let claim = async |call: Uuid| -> Value {
        lab.admin.query_one("select nofx.steps_claim($1, $2)", &[&items, &call]).await.unwrap().get(0)
    };
    let call = Uuid::new_v4();
    let first = claim(call).await;
    let before = lab.everything(run).await;
    assert_eq!((first["claimed"].as_array().unwrap().len(), &first["claimed"][0]["attempt"]), (1, &json!(1)));
    assert_eq!(claim(call).await["claimed"], first["claimed"]);
    let other = claim(Uuid::new_v4()).await;
    assert_eq!((&other["claimed"], &other["skipped"][0]["status"]), (&json!([]), &json!("running")));
    lab.assert_unchanged(run, &before).await;
}

#[tokio::test]
async fn a_finish_that_was_committed_without_an_answer_returns_its_claimed_steps() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(2)).await;
    let (item, lost) = (done(&lab, run, "s0").await, continuation());
    let first = step::steps_finish(&lab.ctx.db, std::slice::from_ref(&item), Some(&lost)).await.unwrap();
    // If a commit gets no answer, the worker records the step with another call: ready for a retry.
    let retry = FinishItem { call: Some(lost.call), to: FinishTo::Ready, outputs: None, ..item };
    let again = step::steps_finish(&lab.ctx.db, &[retry], Some(&continuation())).await.unwrap();
    assert_eq!(again.items[0].result, FinishResult::Stale);
    assert_eq!(again.claimed[0].step_id, first.claimed[0].step_id);
    lab.assert_invariants().await;
}

fn continuation() -> Continuation {
    Continuation {
        call: Uuid::new_v4(),
        handler: "echo",
        lease_s: 30,
        timeout_s: 27,
        refs_bytes: 1 << 20,
        terms: false,
    }
}

/// Claims a step, and returns the finish that would record its success.
async fn done(lab: &Lab, run: RunId, name: &str) -> FinishItem {
    let step_id = lab.step(run, name).await;
    let item = ClaimItem {
        tenant_id: lab.tenant.clone(),
        run_id: run,
        step_id,
        lease_s: 30,
        refs_bytes: 1 << 20,
        terms: false,
    };
    let claims = step::steps_claim(&lab.ctx.db, &[item]).await.unwrap();
    finish_item(&claims.claimed[0], succeeded(json!({ "said": "hello" })), 1 << 20, 0.0)
}
