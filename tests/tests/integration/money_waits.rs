//! Budgets of which only reserved money is in the way: nobody is asked, and steps go on when requests in flight end.

use nofx_tests::delivery::event;
use nofx_tests::script::succeeded;
use nofx_tests::{Deliver, Lab, Script};
use serde_json::json;
use shared::db::gate::{self, GateDecision};
use shared::db::model_call;
use shared::db::policy::{NewPolicy, policy_set};
use shared::db::run::Control;
use shared::db::step::AttemptKey;
use shared::domain::gate::Decision;
use shared::domain::model_call::Charge;
use shared::domain::{CallStart, GateStatus, MicroUsd, Outcome, Permit, RunId, WakeUp};
use shared::flow::control_run::control_run;
use shared::flow::decide_gate::decide_gate;
use shared::flow::sweep::sweep;
use shared::view::WhyNot;

use crate::money::{call, claim, ended, money, overdue, payloads, plan, set_policy, start};

/// A handler that makes one call, as a worker does: it wakes the steps that go on when the call ends.
fn spender(lab: &Lab, reserve: i64, cost: i64) -> Script {
    let (db, queue) = (lab.ctx.db.clone(), lab.ctx.queue.clone());
    Script::overriding(move |step, _| {
        let (db, queue) = (db.clone(), queue.clone());
        async move {
            let key = AttemptKey {
                tenant_id: step.tenant_id.clone(),
                run_id: step.run_id,
                step_id: step.step_id,
                attempt: step.attempt,
            };
            let call = call(reserve);
            Some(match model_call::start(&db, &key, &call).await.unwrap() {
                Permit::Granted => {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    let end = ended(call.id, Charge::Usage(MicroUsd(cost)));
                    let ended = model_call::end(&db, &key, &end).await.unwrap();
                    queue.send(ended.ready).await.unwrap();
                    succeeded(json!({ "attempt": step.attempt }))
                }
                Permit::OverBudget(shortfall) => Outcome::budget_exhausted(&step, &shortfall, None),
                permit => panic!("{permit:?}"),
            })
        }
    })
}

async fn pending(lab: &Lab, run: RunId) -> Vec<shared::view::Gate> {
    let page = gate::gate_list_of_run(&lab.session(), run, None, 100).await.unwrap();
    page.items.into_iter().filter(|gate| gate.status == GateStatus::Pending).collect()
}

fn waits_for(gate: &shared::view::Gate) -> &str {
    gate.subject.as_ref().and_then(|subject| subject["waits_for"].as_str()).unwrap_or_default()
}

/// Starts a call of the run's first step, which is claimed and stays so.
async fn hold(lab: &Lab, run: RunId, reserve: i64) -> (AttemptKey, CallStart) {
    let key = AttemptKey::of(&claim(lab, run, lab.step(run, "s0").await).await);
    let call = call(reserve);
    assert_eq!(start(lab, &key, &call).await, Permit::Granted);
    (key, call)
}

/// Ends the call and sends the wake-ups of what goes on.
async fn release(lab: &Lab, (key, call): &(AttemptKey, CallStart), cost: i64) -> Vec<WakeUp> {
    let end = ended(call.id, Charge::Usage(MicroUsd(cost)));
    let ready = model_call::end(&lab.ctx.db, key, &end).await.unwrap().ready;
    lab.ctx.queue.send(ready.clone()).await.unwrap();
    ready
}

#[tokio::test]
async fn parallel_steps_share_a_small_budget_and_ask_nobody() {
    let lab = Lab::new().await;
    // Twelve of them fit at a time. Together they cost a tenth of the budget.
    let run = lab.submit(&plan(60, Some("0.05"))).await;
    let worker = lab.worker("codegen", &spender(&lab, 4_100, 80));
    loop {
        let sent = lab.sent().await;
        if sent.is_empty() {
            break;
        }
        let batches =
            sent.iter().map(|wakeup| worker.handle_batch(event(std::slice::from_ref(wakeup), Deliver::Once), None));
        futures::future::join_all(batches).await;
    }
    assert_eq!(lab.run_status(run).await, "succeeded", "no sweep was needed");
    assert_eq!(money(&lab, run).await, (Some(50_000), 60 * 80, 0));
    let waited = payloads(&lab, run, "budget.exhausted").await;
    assert!(waited.iter().all(|one| one["waits_for"] == "reserved"), "{waited:?}");
    assert!(!waited.is_empty() && waited.len() < 120, "{} waits", waited.len());
    lab.assert_invariants().await;
}

#[tokio::test]
async fn what_waits_for_a_request_in_flight_goes_on_when_that_ends() {
    let lab = Lab::new().await;
    let document = json!({ "approvals": { "max_expires_after_s": 60 } });
    let policy = NewPolicy { document: &document, actor: "ann", reason: None, if_version: None };
    policy_set(&lab.session(), &policy).await.unwrap();
    let run = lab.submit(&plan(3, Some("0.001"))).await;
    let held = hold(&lab, run, 900).await;
    let script = spender(&lab, 400, 300);
    lab.settle(&script, Deliver::Thrice).await;
    let gates = pending(&lab, run).await;
    assert_eq!(gates.iter().map(waits_for).collect::<Vec<_>>(), ["reserved", "reserved"]);
    assert!(gates[0].reason.as_deref().unwrap().ends_with("Nobody has to decide."), "{:?}", gates[0].reason);
    let why = gates[0].standing.may_decide.and_then(|may| may.why);
    assert_eq!((gates[0].expires_at.as_ref(), why), (None, Some(WhyNot::InFlight)));
    let approve =
        GateDecision { gate_id: gates[0].id, decision: Decision::Approve, actor: "ann", reason: None, seen: None };
    let refused = decide_gate(&lab.ctx, &lab.session(), &approve).await.unwrap_err();
    assert_eq!(refused.code().as_str(), "approval_rule");
    assert_eq!(sweep(&lab.ctx).await.unwrap().budgets_passed, 0);

    assert_eq!(release(&lab, &held, 100).await.len(), 2);
    lab.settle(&script, Deliver::Once).await;
    assert_eq!((pending(&lab, run).await.len(), money(&lab, run).await), (0, (Some(1_000), 700, 0)));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn who_waited_in_vain_asks_people() {
    let lab = Lab::new().await;
    let run = lab.submit(&plan(2, Some("0.001"))).await;
    let held = hold(&lab, run, 900).await;
    let script = spender(&lab, 400, 300);
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(waits_for(&pending(&lab, run).await[0]), "reserved");
    release(&lab, &held, 900).await;
    lab.settle(&script, Deliver::Once).await;
    let gates = pending(&lab, run).await;
    assert_eq!(gates.iter().map(waits_for).collect::<Vec<_>>(), ["approval"]);
    let approve =
        GateDecision { gate_id: gates[0].id, decision: Decision::Approve, actor: "ann", reason: None, seen: None };
    decide_gate(&lab.ctx, &lab.session(), &approve).await.unwrap();
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(money(&lab, run).await, (Some(1_300), 1_200, 0));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn who_waited_for_the_run_and_lacks_a_budget_of_the_tenant_says_so() {
    let lab = Lab::new().await;
    let run = lab.submit(&plan(2, Some("0.001"))).await;
    let held = hold(&lab, run, 900).await;
    let script = spender(&lab, 400, 300);
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(waits_for(&pending(&lab, run).await[0]), "reserved");
    set_policy(&lab, json!({ "budgets": { "day_usd": "0.0004" } })).await;
    assert_eq!(sweep(&lab.ctx).await.unwrap().budgets_passed, 0, "the run's budget is still in the way");
    assert_eq!(release(&lab, &held, 100).await.len(), 1);
    lab.settle(&script, Deliver::Once).await;
    let gates = pending(&lab, run).await;
    assert_eq!(gates.iter().map(waits_for).collect::<Vec<_>>(), ["policy"]);
    assert_eq!(sweep(&lab.ctx).await.unwrap().budgets_passed, 0);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_lost_request_holds_others_back_only_until_the_sweeper_settles_it() {
    let lab = Lab::new().await;
    let run = lab.submit(&plan(2, Some("0.001"))).await;
    hold(&lab, run, 600).await;
    let script = spender(&lab, 500, 300);
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(waits_for(&pending(&lab, run).await[0]), "reserved");
    overdue(&lab).await;
    sweep(&lab.ctx).await.unwrap();
    sweep(&lab.ctx).await.unwrap();
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(
        pending(&lab, run).await.iter().map(waits_for).collect::<Vec<_>>(),
        ["approval"],
        "it cost all that was reserved"
    );
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_budget_of_the_tenant_frees_steps_of_other_runs_and_its_gates_never_expire() {
    let lab = Lab::new().await;
    let policy =
        |day: &str| json!({ "approvals": { "max_expires_after_s": 60 }, "models": { "budgets": { "day_usd": day } } });
    let set = async |day: &str| {
        let document = policy(day);
        let policy = NewPolicy { document: &document, actor: "ann", reason: None, if_version: None };
        policy_set(&lab.session(), &policy).await.unwrap();
    };
    set("0.001").await;
    let (busy, waiting) = (lab.submit(&plan(1, None)).await, lab.submit(&plan(3, None)).await);
    let held = hold(&lab, busy, 900).await;
    let script = spender(&lab, 400, 350);
    lab.settle(&script, Deliver::Once).await;
    let gates = pending(&lab, waiting).await;
    assert!(
        gates.len() == 3 && gates.iter().all(|gate| waits_for(gate) == "reserved" && gate.expires_at.is_none()),
        "{gates:?}"
    );
    // Two fit. When they have ended, the third asks again.
    assert_eq!(release(&lab, &held, 100).await.len(), 2);
    lab.settle(&script, Deliver::Once).await;
    let gates = pending(&lab, waiting).await;
    assert!(gates.len() == 1 && waits_for(&gates[0]) == "policy" && gates[0].expires_at.is_none(), "{gates:?}");
    set("0.0012").await;
    assert_eq!(sweep(&lab.ctx).await.unwrap().budgets_passed, 1);
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(lab.run_status(waiting).await, "succeeded");

    // A gate that people decide expires as the policy says.
    let run = lab.submit(&plan(1, Some("0.00001"))).await;
    lab.settle(&script, Deliver::Once).await;
    let gates = pending(&lab, run).await;
    assert!(waits_for(&gates[0]) == "approval" && gates[0].expires_at.is_some(), "{gates:?}");
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_free_model_fits_into_a_budget_that_is_used_up() {
    let lab = Lab::new().await;
    let run = lab.submit(&plan(2, Some("0.0003"))).await;
    let (key, first) = hold(&lab, run, 300).await;
    model_call::end(&lab.ctx.db, &key, &ended(first.id, Charge::Usage(MicroUsd(300)))).await.unwrap();
    set_policy(&lab, json!({ "budgets": { "day_usd": "0.0001", "month_usd": 0 } })).await;
    assert_eq!(start(&lab, &key, &call(0)).await, Permit::Granted);
    assert!(matches!(start(&lab, &key, &call(1)).await, Permit::OverBudget(_)));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_run_is_sealed_only_when_its_last_request_is_settled() {
    let lab = Lab::new().await;
    let run = lab.submit(&plan(1, None)).await;
    hold(&lab, run, 300).await;
    control_run(&lab.ctx, &lab.session(), run, Control::Cancel, "ann").await.unwrap();
    let taken =
        async || -> serde_json::Value { lab.admin.query_one("select nofx.seals_take(10)", &[]).await.unwrap().get(0) };
    assert_eq!(taken().await, json!([]), "a request is in flight");
    overdue(&lab).await;
    assert_eq!(sweep(&lab.ctx).await.unwrap().calls_settled, 1);
    assert_eq!(taken().await, json!([]), "its worker may still know what it cost");
    let later = "update nofx.llm_call set started_at = started_at - interval '5 minutes', due_at = due_at - interval '5 minutes',
                                          ended_at = ended_at - interval '5 minutes'";
    lab.admin.execute(later, &[]).await.unwrap();
    assert_eq!(taken().await, json!([{ "tenant_id": lab.tenant, "run_id": run }]));
}
