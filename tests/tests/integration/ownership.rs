//! An attempt that lost its step notices it, and its token usage is still recorded.

use nofx_tests::delivery::event;
use nofx_tests::lab::session;
use nofx_tests::{Deliver, Lab, plans};
use serde_json::{Map, Value, json};
use shared::context::Ctx;
use shared::db::run::Control;
use shared::db::step::{self, AttemptKey, ClaimItem, Claimed, FinishItem, FinishResult};
use shared::domain::{NewEvent, Outcome, RunId, StepId, TenantId, tool};
use shared::flow::control_run::control_run;
use shared::flow::finish_step::finish_item;
use shared::storage::StepStore;
use shared::worker::{ClaimedStep, Handler, Ownership, WorkThenRecord, Worker};
use uuid::Uuid;

async fn claim(lab: &Lab, run: RunId, step: StepId) -> Claimed {
    let item = ClaimItem {
        tenant_id: lab.tenant.clone(),
        run_id: run,
        step_id: step,
        lease_s: 60,
        refs_bytes: 1 << 20,
        terms: false,
    };
    let mut claims = step::steps_claim(&lab.ctx.db, &[item]).await.unwrap();
    claims.claimed.pop().expect("the step can be claimed")
}

async fn cancel(ctx: &Ctx, run: RunId) {
    control_run(ctx, &session(&ctx.db, &ctx.config.tenant), run, Control::Cancel, "ann").await.unwrap();
}

fn payload(tokens: u32) -> Value {
    json!({
        "provider": "openai", "model": "m", "usable": false, "reason": "cut off", "input_tokens": null,
        "output_tokens": tokens, "cached_input_tokens": null, "cache_write_input_tokens": null, "reasoning_tokens": 0,
    })
}

fn outcome_with_usage() -> Outcome {
    let mut outcome = Outcome::succeeded(Map::new());
    for (kind, tokens) in [("codegen.usage", 7), ("codegen.usage", 8), ("test.noted", 9)] {
        outcome.events.push(NewEvent { kind: kind.into(), payload: payload(tokens) });
    }
    outcome
}

fn end(claimed: &Claimed) -> FinishItem {
    finish_item(claimed, outcome_with_usage(), 1 << 20, 0.0)
}

async fn usage(lab: &Lab, run: RunId) -> Vec<Value> {
    let sql =
        "select payload from nofx.event where run_id = $1 and type in ('codegen.usage', 'test.noted') order by seq";
    lab.admin.query(sql, &[&run.0]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn an_attempt_is_live_until_it_ends_is_cancelled_or_another_starts() {
    let lab = Lab::new().await;
    let live = async |key: &AttemptKey| step::attempt_is_live(&lab.ctx.db, key).await.unwrap();
    let run = lab.submit(&plans::wide(2)).await;
    let (id, other) = (lab.step(run, "s0").await, lab.step(run, "s1").await);
    let first = claim(&lab, run, id).await;
    let key = AttemptKey::of(&first);
    assert!(live(&key).await);
    let other_keys = [
        AttemptKey { attempt: 2, ..key.clone() },
        AttemptKey { tenant_id: TenantId("another".into()), ..key.clone() },
        AttemptKey { run_id: RunId(Uuid::new_v4()), ..key.clone() },
        AttemptKey { step_id: other, ..key.clone() },
    ];
    for other_key in &other_keys {
        assert!(!live(other_key).await, "{other_key:?}");
    }
    lab.lease_over(id).await;
    assert!(live(&key).await, "no other worker has claimed it");
    let second = AttemptKey::of(&claim(&lab, run, id).await);
    assert!(!live(&key).await && live(&second).await);

    control_run(&lab.ctx, &session(&lab.ctx.db, &lab.tenant), run, Control::Pause, "ann").await.unwrap();
    assert!(live(&second).await, "a running step continues while its run is paused");
    cancel(&lab.ctx, run).await;
    assert!(!live(&second).await);
}

#[tokio::test]
async fn the_usage_of_a_cancelled_attempt_is_recorded_once_and_changes_nothing_else() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(2)).await;
    let item = end(&claim(&lab, run, lab.step(run, "s0").await).await);
    cancel(&lab.ctx, run).await;
    let before = lab.outcome(run).await;
    let finishes = step::steps_finish(&lab.ctx.db, std::slice::from_ref(&item), None).await.unwrap();
    assert_eq!(finishes.items[0].result, FinishResult::Stale);
    for recorded in [2, 0] {
        assert_eq!(step::attempt_usage_record(&lab.ctx.db, &item).await.unwrap(), recorded);
    }
    let expected = [7, 8].map(|tokens| {
        let mut payload = payload(tokens);
        payload["late_attempt"] = json!(1);
        payload
    });
    assert_eq!(usage(&lab, run).await, expected);
    assert_eq!(lab.outcome(run).await, before);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn the_usage_of_both_attempts_is_recorded_if_the_first_one_is_late() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let id = lab.step(run, "s0").await;
    let late = end(&claim(&lab, run, id).await);
    lab.lease_over(id).await;
    let second = end(&claim(&lab, run, id).await);
    assert_eq!(step::attempt_usage_record(&lab.ctx.db, &late).await.unwrap(), 2);
    // An attempt that owns its step, or has finished, reports its usage with its finish, not here.
    assert_eq!(step::attempt_usage_record(&lab.ctx.db, &second).await.unwrap(), 0);
    step::steps_finish(&lab.ctx.db, std::slice::from_ref(&second), None).await.unwrap();
    assert_eq!(step::attempt_usage_record(&lab.ctx.db, &second).await.unwrap(), 0);
    let of_another_tenant = FinishItem { tenant_id: TenantId("another".into()), attempt: 1, ..late };
    assert_eq!(step::attempt_usage_record(&lab.ctx.db, &of_another_tenant).await.unwrap(), 0);
    assert_eq!(usage(&lab, run).await.len(), 5);
    assert_eq!(lab.run_status(run).await, "succeeded");
    lab.assert_invariants().await;
}

/// A handler that uses tokens while its run is cancelled.
struct TokenUser(Ctx);

impl Handler for TokenUser {
    async fn handle(&self, _: &ClaimedStep, _: &StepStore) -> Outcome {
        unreachable!("the worker calls handle_while_owned")
    }

    async fn handle_while_owned(&self, step: &ClaimedStep, _: &StepStore, ownership: &Ownership) -> Outcome {
        assert!(ownership.holds().await);
        cancel(&self.0, step.run_id).await;
        assert!(!ownership.holds().await);
        outcome_with_usage()
    }
}

#[tokio::test]
async fn a_handler_notices_a_cancel_and_the_worker_records_its_usage() {
    let lab = Lab::new().await;
    let plan = json!({ "goal": "use tokens", "steps": [plans::step("write", "codegen", json!({ "prompt": "p" }))] });
    let run = lab.submit(&plan).await;
    let sent = lab.sent().await;
    let spec = tool::handler("codegen").expect("a known handler");
    let worker = Worker::new(lab.ctx.clone(), spec, WorkThenRecord(TokenUser(lab.ctx.clone())));
    let response = worker.handle_batch(event(&sent, Deliver::Once), None).await;
    assert!(response.batch_item_failures.is_empty());
    assert_eq!(lab.run_status(run).await, "cancelled");
    assert_eq!(usage(&lab, run).await.len(), 2);
    lab.assert_invariants().await;
}
