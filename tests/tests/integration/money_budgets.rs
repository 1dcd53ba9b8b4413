//! Exhausted budgets: a step waits for money, and goes on when there is some.

use nofx_tests::script::succeeded;
use nofx_tests::{Deliver, Lab, Script};
use serde_json::json;
use shared::db::gate::{self, GateDecision};
use shared::db::model_call;
use shared::db::step::AttemptKey;
use shared::domain::gate::Decision;
use shared::domain::model_call::Charge;
use shared::domain::{GateStatus, MicroUsd, Outcome, Permit, RunId};
use shared::flow::decide_gate::decide_gate;
use shared::flow::sweep::sweep;

use crate::money::{call, ended, money, payloads, plan, set_policy};

/// A handler that starts one call of 400 micro-dollars and blocks if a budget refuses it.
fn spender(lab: &Lab) -> Script {
    let db = lab.ctx.db.clone();
    Script::overriding(move |step, _| {
        let db = db.clone();
        async move {
            let key = AttemptKey {
                tenant_id: step.tenant_id.clone(),
                run_id: step.run_id,
                step_id: step.step_id,
                attempt: step.attempt,
            };
            let call = call(400);
            Some(match model_call::start(&db, &key, &call).await.unwrap() {
                Permit::Granted => {
                    model_call::end(&db, &key, &ended(call.id, Charge::Usage(MicroUsd(300)))).await.unwrap();
                    succeeded(json!({ "attempt": step.attempt }))
                }
                Permit::OverBudget(shortfall) => Outcome::budget_exhausted(&step, &shortfall, None),
                permit => panic!("{permit:?}"),
            })
        }
    })
}

async fn pending(lab: &Lab, run: RunId) -> Vec<shared::view::Gate> {
    let page = gate::gate_list_of_run(&lab.session(), run, None, 10).await.unwrap();
    page.items.into_iter().filter(|gate| gate.status == GateStatus::Pending).collect()
}

async fn decide(
    lab: &Lab,
    gate: &shared::view::Gate,
    decision: Decision,
) -> Result<shared::view::Gate, shared::error::Error> {
    let decision = GateDecision { gate_id: gate.id, decision, actor: "ann", reason: Some("so"), seen: None };
    decide_gate(&lab.ctx, &lab.session(), &decision).await
}

#[tokio::test]
async fn an_exhausted_budget_waits_for_an_approval_that_raises_it() {
    let lab = Lab::new().await;
    let run = lab.submit(&plan(1, Some("0.00035"))).await;
    let script = spender(&lab);
    lab.settle(&script, Deliver::Thrice).await;
    assert_eq!(lab.run_status(run).await, "blocked");
    let gates = pending(&lab, run).await;
    assert_eq!((gates.len(), gates[0].gate_type.as_str()), (1, "budget"));
    let reason = gates[0].reason.as_deref().unwrap();
    assert!(
        reason.contains("has $0.00035: $0.00 is spent") && reason.ends_with("raise the run's budget by $0.00005."),
        "{reason}"
    );
    let exhausted = payloads(&lab, run, "budget.exhausted").await;
    assert_eq!((exhausted.len(), &exhausted[0]["missing_usd_micros"]), (1, &json!(50)));
    assert_eq!(sweep(&lab.ctx).await.unwrap().budgets_passed, 0);
    assert_eq!(decide(&lab, &gates[0], Decision::Waive).await.unwrap_err().code().as_str(), "approval_rule");

    decide(&lab, &gates[0], Decision::Approve).await.unwrap();
    assert_eq!(money(&lab, run).await, (Some(400), 0, 0));
    lab.settle(&script, Deliver::Thrice).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    assert_eq!(money(&lab, run).await, (Some(400), 300, 0));
    let raised = payloads(&lab, run, "budget.raised").await;
    assert_eq!((&raised[0]["from_usd_micros"], &raised[0]["to_usd_micros"]), (&json!(350), &json!(400)));
    let step = lab.snapshot(run).await["steps"]["s0"].clone();
    assert_eq!((&step["attempts"], &step["failures"]), (&json!(["blocked", "succeeded"]), &json!(0)));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_rejected_budget_fails_the_step() {
    let lab = Lab::new().await;
    let run = lab.submit(&plan(1, Some("0.00035"))).await;
    lab.settle(&spender(&lab), Deliver::Once).await;
    decide(&lab, &pending(&lab, run).await[0], Decision::Reject).await.unwrap();
    assert_eq!(lab.run_status(run).await, "failed");
    assert_eq!(money(&lab, run).await, (Some(350), 0, 0));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_tenants_budget_is_raised_by_its_policy_or_by_the_next_day() {
    let lab = Lab::new().await;
    set_policy(&lab, json!({ "budgets": { "day_usd": "0.0005" } })).await;
    let run = lab.submit(&plan(3, None)).await;
    let script = spender(&lab);
    lab.settle(&script, Deliver::Once).await;
    let gates = pending(&lab, run).await;
    assert_eq!((lab.run_status(run).await.as_str(), gates.len()), ("blocked", 2));
    let refused = decide(&lab, &gates[0], Decision::Approve).await.unwrap_err();
    assert!(refused.to_string().contains("models.budgets"), "{refused}");
    assert_eq!(pending(&lab, run).await.len(), 2);
    assert_eq!(sweep(&lab.ctx).await.unwrap().budgets_passed, 0);

    // Room for one: only one goes on.
    set_policy(&lab, json!({ "budgets": { "day_usd": "0.0007" } })).await;
    assert_eq!(sweep(&lab.ctx).await.unwrap().budgets_passed, 1);
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(pending(&lab, run).await.len(), 1);
    // What was spent today was spent yesterday.
    for table in [
        "update nofx.llm_call set started_at = started_at - interval '1 day'",
        "update nofx.llm_spend set starts_on = starts_on - 1 where period = 'day'",
    ] {
        lab.admin.execute(table, &[]).await.unwrap();
    }
    assert_eq!(sweep(&lab.ctx).await.unwrap().budgets_passed, 1);
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    assert_eq!(money(&lab, run).await, (None, 900, 0));
}
