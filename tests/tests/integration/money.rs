//! Model calls and their money: a start reserves, an end settles, and a budget is never passed.

use nofx_tests::lab::session;
use nofx_tests::{Lab, plans};
use serde_json::{Value, json};
use shared::db::model_call::{self, Settled};
use shared::db::policy::{NewPolicy, policy_set};
use shared::db::run::Control;
use shared::db::step::{self, AttemptKey, ClaimItem, Claimed, Terms};
use shared::db::{cost, run};
use shared::domain::model_call::{Because, BudgetScope, CallFault, Charge, Cooldown};
use shared::domain::price::PriceTable;
use shared::domain::{CallEnd, CallStart, MicroUsd, Permit, RunId, Shortfall, StepId, TokenUsage};
use shared::flow::control_run::control_run;
use shared::flow::sweep::sweep;
use uuid::Uuid;

/// A plan of steps that call models, side by side.
pub fn plan(steps: usize, budget: Option<&str>) -> Value {
    let steps: Vec<Value> = (0..steps)
        .map(|at| {
            let mut step = plans::step(&format!("s{at}"), "codegen", json!({ "prompt": "p" }));
            step["depends_on"] = json!([]);
            step
        })
        .collect();
    let mut plan = json!({ "goal": "spend", "steps": steps });
    if let Some(usd) = budget {
        plan["budget"] = json!({ "usd": usd });
    }
    plan
}

pub async fn claim(lab: &Lab, run: RunId, step: StepId) -> Claimed {
    let item = ClaimItem {
        tenant_id: lab.tenant.clone(),
        run_id: run,
        step_id: step,
        lease_s: 60,
        refs_bytes: 1 << 20,
        terms: true,
    };
    step::steps_claim(&lab.ctx.db, &[item]).await.unwrap().claimed.pop().expect("the step can be claimed")
}

/// The first step of a new run, claimed.
async fn claimed(lab: &Lab, budget: Option<&str>) -> (RunId, AttemptKey) {
    let run = lab.submit(&plan(1, budget)).await;
    (run, AttemptKey::of(&claim(lab, run, lab.step(run, "s0").await).await))
}

pub fn call(reserve: i64) -> CallStart {
    CallStart {
        id: Uuid::new_v4(),
        provider: "openai".into(),
        model: "gpt-6-luna".into(),
        deployment: "0123456789abcdef".into(),
        reserve: Some(MicroUsd(reserve)),
        price: PriceTable::builtin().price("openai", "gpt-6-luna"),
        limit_ms: 60_000,
        because: Because::First,
    }
}

pub fn ended(id: Uuid, charge: Charge) -> CallEnd {
    let usage = TokenUsage { input_tokens: Some(7), output_tokens: Some(3), ..TokenUsage::default() };
    CallEnd {
        id,
        usage: matches!(charge, Charge::Usage(_)).then_some(usage),
        charge,
        model_served: Some("gpt-6-luna-2026".into()),
        usable: true,
        fault: None,
        duration_ms: 12,
        cooldown: None,
        recovered: false,
    }
}

pub async fn start(lab: &Lab, key: &AttemptKey, call: &CallStart) -> Permit {
    model_call::start(&lab.ctx.db, key, call).await.unwrap()
}

pub async fn end(lab: &Lab, key: &AttemptKey, end: &CallEnd) -> Settled {
    model_call::end(&lab.ctx.db, key, end).await.unwrap().result
}

/// Budget, spent and reserved of a run.
pub async fn money(lab: &Lab, id: RunId) -> (Option<i64>, i64, i64) {
    let run = run::run_fetch(&lab.session(), id).await.unwrap().expect("a run");
    (run.budget_usd_micros.map(|amount| amount.0), run.spent_usd_micros.0, run.reserved_usd_micros.0)
}

pub async fn payloads(lab: &Lab, run: RunId, kind: &str) -> Vec<Value> {
    let sql = "select payload from nofx.event where run_id = $1 and type = $2 order by seq";
    lab.admin.query(sql, &[&run.0, &kind]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Makes every open call one whose worker was last heard of too long ago.
pub async fn overdue(lab: &Lab) {
    let sql = "update nofx.llm_call set due_at = now() where state = 'open'";
    lab.admin.execute(sql, &[]).await.unwrap();
}

pub async fn set_policy(lab: &Lab, models: Value) {
    let document = json!({ "models": models });
    policy_set(&lab.session(), &NewPolicy { document: &document, actor: "ann", reason: None, if_version: None })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_call_reserves_its_ceiling_and_settles_its_cost_once() {
    let lab = Lab::new().await;
    let (run, key) = claimed(&lab, Some("1.00")).await;
    let call = call(400_000);
    for _ in 0..2 {
        assert_eq!(start(&lab, &key, &call).await, Permit::Granted, "a repeated start changes nothing");
        assert_eq!(money(&lab, run).await, (Some(1_000_000), 0, 400_000));
    }
    let end_of_call = ended(call.id, Charge::Usage(MicroUsd(123_456)));
    for result in [Settled::Settled, Settled::Repeated] {
        assert_eq!(end(&lab, &key, &end_of_call).await, result);
        assert_eq!(money(&lab, run).await, (Some(1_000_000), 123_456, 0));
    }
    assert_eq!(end(&lab, &key, &ended(Uuid::new_v4(), Charge::Nothing)).await, Settled::Unknown);
    assert_eq!(start(&lab, &key, &call).await, Permit::Lost, "a settled call is not sent again");

    let attempts = payloads(&lab, run, "llm.attempt").await;
    let expected = json!([{
        "call_id": call.id, "provider": "openai", "model_requested": "gpt-6-luna", "reserved_usd_micros": 400_000,
        "price_version": "2026-11-29", "because": {"why": "first"},
    }]);
    assert_eq!(json!(attempts), expected);
    let usage = payloads(&lab, run, "llm.usage").await;
    let expected = json!([{
        "call_id": call.id, "provider": "openai", "model": "gpt-6-luna-2026", "model_requested": "gpt-6-luna",
        "model_served": "gpt-6-luna-2026", "usable": true, "duration_ms": 12, "cost_usd_micros": 123_456,
        "price_version": "2026-11-29", "input_tokens": 7, "output_tokens": 3, "cached_input_tokens": null,
        "cache_write_input_tokens": null, "reasoning_tokens": null,
    }]);
    assert_eq!(json!(usage), expected);

    let costs = cost::run_costs(&lab.session(), run).await.unwrap().expect("a run");
    assert_eq!(
        (costs.steps.len(), costs.steps[0].name.as_deref(), costs.models[0].model.as_deref()),
        (1, Some("s0"), Some("gpt-6-luna-2026"))
    );
    assert_eq!((costs.steps[0].calls, costs.steps[0].cost_usd_micros), (1, MicroUsd(123_456)));
    let all = cost::tenant_costs(&lab.session(), None, None).await.unwrap();
    assert_eq!((all.total.input_tokens, all.total.cost_usd_micros, all.days.len()), (7, MicroUsd(123_456), 1));
    assert_eq!(all.budgets.iter().map(|budget| budget.spent_usd_micros.0).collect::<Vec<_>>(), [123_456, 123_456]);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn each_charge_is_what_it_says() {
    let lab = Lab::new().await;
    let (run, key) = claimed(&lab, Some("10")).await;
    let mut spent = 0;
    for (charge, cost) in [
        (Charge::Nothing, 0),
        (Charge::Usage(MicroUsd(17)), 17),
        (Charge::Ceiling, 1_000),
        // A provider that reports more than the ceiling is charged the ceiling, so that no budget is passed.
        (Charge::Usage(MicroUsd(5_000)), 1_000),
    ] {
        let call = call(1_000);
        assert_eq!(start(&lab, &key, &call).await, Permit::Granted);
        assert_eq!(end(&lab, &key, &ended(call.id, charge)).await, Settled::Settled);
        spent += cost;
        assert_eq!(money(&lab, run).await, (Some(10_000_000), spent, 0), "{charge:?}");
        let usage = payloads(&lab, run, "llm.usage").await.pop().unwrap();
        assert_eq!(usage["cost_usd_micros"], cost);
        assert_eq!(usage["estimated"] == true, charge == Charge::Ceiling);
        let reported = (charge == Charge::Usage(MicroUsd(5_000))).then_some(5_000);
        assert_eq!(
            (usage["exceeds_reserved"] == true, usage["reported_usd_micros"].as_i64()),
            (reported.is_some(), reported)
        );
    }
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_budget_refuses_what_it_does_not_cover_and_models_without_a_price() {
    let lab = Lab::new().await;
    let (run, key) = claimed(&lab, Some("0.01")).await;
    let first = call(6_000);
    assert_eq!(start(&lab, &key, &first).await, Permit::Granted);
    let short = |scope, cap, spent, reserved, needs| {
        let [cap, spent, reserved, needs] = [cap, spent, reserved, needs].map(MicroUsd);
        Permit::OverBudget(Shortfall { scope, cap, spent, reserved, needs })
    };
    assert_eq!(start(&lab, &key, &call(4_001)).await, short(BudgetScope::Run, 10_000, 0, 6_000, 4_001));
    end(&lab, &key, &ended(first.id, Charge::Usage(MicroUsd(2_000)))).await;
    assert_eq!(start(&lab, &key, &call(8_001)).await, short(BudgetScope::Run, 10_000, 2_000, 0, 8_001));
    let unpriced = CallStart { reserve: None, price: None, ..call(0) };
    assert_eq!(start(&lab, &key, &unpriced).await, Permit::Unpriced { scope: BudgetScope::Run });
    assert_eq!(money(&lab, run).await, (Some(10_000), 2_000, 0));

    // A run without a budget of its own is bound by those of its tenant.
    let (free, key) = claimed(&lab, None).await;
    let unbound = CallStart { id: Uuid::new_v4(), ..unpriced.clone() };
    assert_eq!(start(&lab, &key, &unbound).await, Permit::Granted);
    assert_eq!(end(&lab, &key, &ended(unbound.id, Charge::Unpriced)).await, Settled::Settled);
    assert!(payloads(&lab, free, "llm.usage").await[0].get("cost_usd_micros").is_none());
    set_policy(&lab, json!({ "budgets": { "month_usd": 0.003 } })).await;
    assert_eq!(start(&lab, &key, &call(1_001)).await, short(BudgetScope::Month, 3_000, 2_000, 0, 1_001));
    assert_eq!(start(&lab, &key, &unpriced).await, Permit::Unpriced { scope: BudgetScope::Month });
    set_policy(&lab, json!({ "budgets": { "day_usd": "0.0025", "month_usd": "0.003" } })).await;
    assert_eq!(start(&lab, &key, &call(501)).await, short(BudgetScope::Day, 2_500, 2_000, 0, 501));
    assert_eq!(start(&lab, &key, &call(500)).await, Permit::Granted);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_call_whose_worker_died_costs_what_was_reserved_until_its_true_end_comes() {
    let lab = Lab::new().await;
    let (run, key) = claimed(&lab, Some("1")).await;
    let call = call(300);
    start(&lab, &key, &call).await;
    assert_eq!(sweep(&lab.ctx).await.unwrap().calls_settled, 0, "it may still be in flight");
    overdue(&lab).await;
    assert_eq!(sweep(&lab.ctx).await.unwrap().calls_settled, 1);
    assert_eq!(sweep(&lab.ctx).await.unwrap().calls_settled, 0);
    assert_eq!(money(&lab, run).await, (Some(1_000_000), 300, 0));
    let guess = payloads(&lab, run, "llm.usage").await.pop().unwrap();
    assert_eq!((&guess["estimated"], &guess["kind"], &guess["usable"]), (&json!(true), &json!("lost"), &json!(false)));

    assert_eq!(end(&lab, &key, &ended(call.id, Charge::Ceiling)).await, Settled::Repeated);
    assert_eq!(end(&lab, &key, &ended(call.id, Charge::Usage(MicroUsd(40)))).await, Settled::Corrected);
    assert_eq!(end(&lab, &key, &ended(call.id, Charge::Usage(MicroUsd(50)))).await, Settled::Repeated);
    assert_eq!(money(&lab, run).await, (Some(1_000_000), 40, 0));
    let corrected = payloads(&lab, run, "llm.usage").await.pop().unwrap();
    assert_eq!((&corrected["cost_usd_micros"], &corrected["corrects_usd_micros"]), (&json!(40), &json!(300)));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn an_attempt_that_lost_its_step_starts_nothing_and_still_settles() {
    let lab = Lab::new().await;
    let (run, key) = claimed(&lab, Some("1")).await;
    let (sent, unanswered) = (call(300), call(200));
    start(&lab, &key, &sent).await;
    start(&lab, &key, &unanswered).await;
    control_run(&lab.ctx, &session(&lab.ctx.db, &lab.tenant), run, Control::Cancel, "ann").await.unwrap();
    assert_eq!(start(&lab, &key, &call(1)).await, Permit::Lost);
    // The answer of its first start was lost, so nothing was sent.
    assert_eq!(start(&lab, &key, &unanswered).await, Permit::Lost);
    assert_eq!(money(&lab, run).await, (Some(1_000_000), 0, 300));
    assert_eq!(end(&lab, &key, &ended(sent.id, Charge::Usage(MicroUsd(99)))).await, Settled::Settled);
    assert_eq!(money(&lab, run).await, (Some(1_000_000), 99, 0));
    assert_eq!(payloads(&lab, run, "llm.usage").await.pop().unwrap()["late_attempt"], 1);

    // A lease that is over, a newer attempt, another tenant, and another step's call.
    let (run, key) = claimed(&lab, None).await;
    lab.lease_over(key.step_id).await;
    assert_eq!(start(&lab, &key, &call(1)).await, Permit::Lost);
    let newer = AttemptKey::of(&claim(&lab, run, key.step_id).await);
    assert_eq!(start(&lab, &key, &call(1)).await, Permit::Lost);
    let own = call(1);
    assert_eq!(start(&lab, &newer, &own).await, Permit::Granted);
    let foreign = AttemptKey { tenant_id: shared::domain::TenantId("other".into()), ..newer.clone() };
    assert_eq!(start(&lab, &foreign, &call(1)).await, Permit::Lost);
    assert_eq!(end(&lab, &foreign, &ended(own.id, Charge::Nothing)).await, Settled::Unknown);
    assert_eq!(end(&lab, &key, &ended(own.id, Charge::Nothing)).await, Settled::Unknown);
    let (_, other) = claimed(&lab, None).await;
    assert_eq!(start(&lab, &other, &own).await, Permit::Lost);
    assert_eq!(money(&lab, run).await.2, 1);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_hundred_concurrent_callers_never_exceed_a_cap() {
    let lab = Lab::new().await;
    set_policy(&lab, json!({ "budgets": { "day_usd": "0.0075" } })).await;
    let mut keys = Vec::new();
    for budget in [None, Some("0.0031")] {
        let run = lab.submit(&plan(50, budget)).await;
        for at in 0..50 {
            let step = lab.step(run, &format!("s{at}")).await;
            keys.push((run, AttemptKey::of(&claim(&lab, run, step).await)));
        }
    }
    let (lab, keys) = (&lab, &keys);
    let starts = futures::future::join_all(keys.iter().map(|(run, key)| async move {
        let call = call(100);
        (*run, start(lab, key, &call).await, key, call.id)
    }))
    .await;
    let granted: Vec<_> = starts.into_iter().filter(|(_, permit, ..)| *permit == Permit::Granted).collect();
    assert_eq!(granted.len(), 75, "the day covers 75 of them, and asks for no more than it has");
    let limited = granted.iter().filter(|(run, ..)| *run == keys[99].0).count();
    assert!(limited <= 31, "{limited}");
    futures::future::join_all(
        granted
            .iter()
            .map(|(_, _, key, id)| async move { end(lab, key, &ended(*id, Charge::Usage(MicroUsd(60)))).await }),
    )
    .await;
    let (sql, mut spent) = (
        "select sum(spent_usd_micros)::bigint, sum(reserved_usd_micros)::bigint from nofx.llm_spend where period = 'day'",
        0,
    );
    let row = lab.admin.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (75 * 60, 0));
    for run in [keys[0].0, keys[99].0] {
        spent += money(lab, run).await.1;
    }
    assert_eq!(spent, 75 * 60);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_cooldown_reaches_other_steps_until_it_ends() {
    let lab = Lab::new().await;
    let (_, key) = claimed(&lab, None).await;
    let terms = async |budget: Option<&str>| -> Terms {
        let run = lab.submit(&plan(1, budget)).await;
        let claimed = claim(&lab, run, lab.step(run, "s0").await).await;
        serde_json::from_str(claimed.terms.expect("terms").get()).unwrap()
    };
    assert!(
        terms(None).await.cooldowns.is_empty() && !terms(None).await.is_budgeted && terms(Some("1")).await.is_budgeted
    );
    let (failing, earlier) = (call(1), call(1));
    start(&lab, &key, &earlier).await;
    start(&lab, &key, &failing).await;
    let fault = CallFault { kind: "transient".into(), reason: "503".into(), status: Some(503) };
    let cooldown = Cooldown { for_ms: 60_000, of_model: true, kind: "transient".into(), reason: "503".into() };
    let failed =
        CallEnd { fault: Some(fault), cooldown: Some(cooldown), usable: false, ..ended(failing.id, Charge::Nothing) };
    assert_eq!(end(&lab, &key, &failed).await, Settled::Settled);
    let found = terms(None).await.cooldowns.pop().expect("a cooldown");
    assert_eq!(
        (found.deployment.as_str(), found.kind.as_str(), found.reason.as_str()),
        ("0123456789abcdef/gpt-6-luna", "transient", "503")
    );
    assert!((1..=60_000).contains(&found.left_ms), "{found:?}");
    // An answer to a request that was sent before the failure proves nothing.
    let recovered = |id| CallEnd { recovered: true, ..ended(id, Charge::Usage(MicroUsd(1))) };
    end(&lab, &key, &recovered(earlier.id)).await;
    assert_eq!(terms(None).await.cooldowns.len(), 1);
    // An answer of another model ends the cooldown of the key only.
    let other = CallStart { model: "gpt-6-sol".into(), ..call(1) };
    start(&lab, &key, &other).await;
    let refused = Cooldown { for_ms: 60_000, of_model: false, kind: "auth".into(), reason: "401".into() };
    end(&lab, &key, &CallEnd { cooldown: Some(refused), usable: false, ..ended(other.id, Charge::Nothing) }).await;
    let of_key = terms(None).await.cooldowns;
    assert_eq!((of_key.len(), of_key[0].deployment.as_str()), (2, "0123456789abcdef"));
    let other = CallStart { model: "gpt-6-sol".into(), ..call(1) };
    start(&lab, &key, &other).await;
    end(&lab, &key, &recovered(other.id)).await;
    let left = terms(None).await.cooldowns;
    assert_eq!((left.len(), left[0].deployment.as_str()), (1, "0123456789abcdef/gpt-6-luna"));
    let later = call(1);
    start(&lab, &key, &later).await;
    end(&lab, &key, &recovered(later.id)).await;
    assert!(terms(None).await.cooldowns.is_empty());
    // A cooldown that ended long ago is forgotten with the next one.
    let old = "insert into nofx.llm_cooldown (tenant_id, deployment, until, kind, reason, started_at)
               values ($1, 'old', now() - interval '2 hours', 'auth', '401', now() - interval '3 hours')";
    lab.admin.execute(old, &[&lab.tenant.0]).await.unwrap();
    let failing = call(1);
    start(&lab, &key, &failing).await;
    let cooldown = Cooldown { for_ms: 60_000, of_model: true, kind: "transient".into(), reason: "503".into() };
    end(&lab, &key, &CallEnd { cooldown: Some(cooldown), usable: false, ..ended(failing.id, Charge::Nothing) }).await;
    let kept = lab.admin.query("select deployment from nofx.llm_cooldown", &[]).await.unwrap();
    let kept: Vec<String> = kept.iter().map(|row| row.get(0)).collect();
    assert_eq!(kept, ["0123456789abcdef/gpt-6-luna"]);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_deleted_run_leaves_nothing_reserved_and_keeps_what_was_spent() {
    let lab = Lab::new().await;
    let (run, key) = claimed(&lab, None).await;
    let (open, settled) = (call(300), call(200));
    start(&lab, &key, &open).await;
    start(&lab, &key, &settled).await;
    end(&lab, &key, &ended(settled.id, Charge::Usage(MicroUsd(20)))).await;
    let refused = lab.admin.execute("delete from nofx.llm_call where run_id = $1", &[&run.0]).await;
    assert!(refused.is_err(), "a call is deleted only with its run");
    lab.admin.execute("delete from nofx.run where id = $1", &[&run.0]).await.unwrap();
    let rows = lab.admin.query("select spent_usd_micros, reserved_usd_micros from nofx.llm_spend", &[]).await.unwrap();
    let amounts: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(amounts, [(320, 0), (320, 0)]);
    assert!(lab.admin.execute("delete from nofx.llm_spend", &[]).await.is_err(), "what was spent is kept");
    assert_eq!(end(&lab, &key, &ended(open.id, Charge::Nothing)).await, Settled::Unknown);
}
