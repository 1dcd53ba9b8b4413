//! Random sequences of starts, ends, repeats, crashes, sweeps and raises, compared with a model after each.

use std::collections::BTreeMap;

use fastrand::Rng;
use nofx_tests::Lab;
use serde_json::json;
use shared::db::model_call::Settled;
use shared::db::policy::{NewPolicy, policy_set};
use shared::db::step::AttemptKey;
use shared::domain::model_call::Charge;
use shared::domain::{CallStart, MicroUsd, Permit, RunId};
use shared::flow::sweep::sweep;
use uuid::Uuid;

use crate::money::{call, claim, end, ended, money, overdue, plan, start};

const RUNS: usize = 3;
const OPERATIONS: usize = 70;

/// A call as the model knows it.
#[derive(Debug, Clone)]
struct Call {
    start: CallStart,
    key: AttemptKey,
    /// `None` while it is open, then its charge, and whether that is only the ceiling.
    settled: Option<(i64, bool)>,
}

#[derive(Debug, Default)]
struct Model {
    calls: BTreeMap<Uuid, Call>,
    budgets: BTreeMap<RunId, Option<i64>>,
    cap: Option<i64>,
}

impl Model {
    fn reserved(&self, of: impl Fn(&Call) -> bool) -> i64 {
        self.sum(
            |call| if call.settled.is_none() && of(call) { call.start.reserve.map_or(0, |amount| amount.0) } else { 0 },
        )
    }

    fn spent(&self, of: impl Fn(&Call) -> bool) -> i64 {
        self.sum(|call| call.settled.filter(|_| of(call)).map_or(0, |(charge, _)| charge))
    }

    fn sum(&self, amount: impl Fn(&Call) -> i64) -> i64 {
        self.calls.values().map(amount).sum()
    }

    /// What a start of an attempt that owns its step is answered, by its name.
    fn permit(&self, key: &AttemptKey, start: &CallStart) -> &'static str {
        if let Some(known) = self.calls.get(&start.id) {
            return if known.settled.is_none() { "granted" } else { "lost" };
        }
        let budget = self.budgets[&key.run_id];
        let Some(MicroUsd(reserve)) = start.reserve else {
            return if budget.or(self.cap).is_some() { "unpriced" } else { "granted" };
        };
        let of_run = |call: &Call| call.key.run_id == key.run_id;
        let exceeds = |cap: Option<i64>, used: i64| reserve > 0 && cap.is_some_and(|cap| used + reserve > cap);
        if exceeds(budget, self.spent(of_run) + self.reserved(of_run)) {
            "run"
        } else if exceeds(self.cap, self.spent(|_| true) + self.reserved(|_| true)) {
            "month"
        } else {
            "granted"
        }
    }

    /// The charge of an end, and whether it is only the ceiling.
    fn settle(&mut self, id: Uuid, charge: Charge) -> Settled {
        let Some(call) = self.calls.get_mut(&id) else { return Settled::Unknown };
        let reserve = call.start.reserve.map_or(0, |amount| amount.0);
        let new = match charge {
            Charge::Nothing | Charge::Unpriced => (0, false),
            Charge::Usage(MicroUsd(cost)) => (cost.min(reserve), false),
            Charge::Ceiling => (reserve, true),
        };
        let result = match call.settled {
            None => Settled::Settled,
            Some((_, true)) if charge != Charge::Ceiling => Settled::Corrected,
            Some(_) => return Settled::Repeated,
        };
        call.settled = Some(new);
        result
    }

    fn lose_open_calls(&mut self) -> u64 {
        let open: Vec<Uuid> = self.calls.iter().filter(|(_, call)| call.settled.is_none()).map(|(id, _)| *id).collect();
        for id in &open {
            assert_eq!(self.settle(*id, Charge::Ceiling), Settled::Settled);
        }
        open.len() as u64
    }
}

fn name(permit: &Permit) -> String {
    match permit {
        Permit::Granted => "granted".to_owned(),
        Permit::Lost => "lost".to_owned(),
        Permit::Unpriced { .. } => "unpriced".to_owned(),
        Permit::OverBudget(short) => json!(short.scope).as_str().unwrap_or_default().to_owned(),
    }
}

async fn set_cap(lab: &Lab, cap: Option<i64>) {
    let usd = cap.map(|cap| MicroUsd(cap).dollars());
    let document = json!({ "models": { "budgets": { "month_usd": usd } } });
    policy_set(&lab.session(), &NewPolicy { document: &document, actor: "ann", reason: None, if_version: None })
        .await
        .unwrap();
}

async fn check(lab: &Lab, model: &Model, what: &str) {
    for (run, budget) in &model.budgets {
        let of_run = |call: &Call| call.key.run_id == *run;
        let expected = (*budget, model.spent(of_run), model.reserved(of_run));
        assert_eq!(money(lab, *run).await, expected, "{what}");
        if let Some(budget) = budget {
            assert!(expected.1 + expected.2 <= *budget, "{what}: {expected:?}");
        }
    }
}

/// One random operation on the database and on the model.
async fn operate(lab: &Lab, model: &mut Model, keys: &[AttemptKey], rng: &mut Rng) -> String {
    let known: Vec<Uuid> = model.calls.keys().copied().collect();
    let any = |rng: &mut Rng| known.get(rng.usize(..known.len().max(1))).copied();
    match rng.u32(..20) {
        0..8 => {
            let key = &keys[rng.usize(..keys.len())];
            // Some models are free.
            let mut call = call(rng.i64(-50..400).max(0));
            if rng.u32(..8) == 0 {
                (call.reserve, call.price) = (None, None);
            }
            let expected = model.permit(key, &call);
            let permit = start(lab, key, &call).await;
            assert_eq!(name(&permit), expected, "{call:?}");
            if permit == Permit::Granted {
                model.calls.insert(call.id, Call { start: call, key: key.clone(), settled: None });
            }
            format!("start: {permit:?}")
        }
        8..10 => {
            let Some(known) = any(rng).and_then(|id| model.calls.get(&id)) else { return "nothing".into() };
            let permit = start(lab, &known.key, &known.start).await;
            assert_eq!(name(&permit), model.permit(&known.key, &known.start));
            format!("repeat a start: {permit:?}")
        }
        10..17 => {
            let Some(id) = any(rng) else { return "nothing".into() };
            let call = model.calls[&id].clone();
            let charge = match (call.start.reserve, rng.u32(..6)) {
                (None, _) => Charge::Unpriced,
                (_, 0) => Charge::Nothing,
                (_, 1) => Charge::Ceiling,
                // A provider may report any number of tokens.
                (Some(MicroUsd(reserve)), 2) => Charge::Usage(MicroUsd(reserve + (1 << rng.u32(0..40)))),
                (Some(MicroUsd(reserve)), _) => Charge::Usage(MicroUsd(rng.i64(0..=reserve))),
            };
            let expected = model.settle(id, charge);
            assert_eq!(end(lab, &call.key, &ended(id, charge)).await, expected, "{call:?} {charge:?}");
            format!("end: {charge:?} {expected:?}")
        }
        17 => {
            overdue(lab).await;
            assert_eq!(sweep(&lab.ctx).await.unwrap().calls_settled, model.lose_open_calls());
            "crash and sweep".into()
        }
        18 => {
            model.cap = Some(rng.i64(500..6_000)).filter(|_| rng.bool());
            set_cap(lab, model.cap).await;
            format!("cap {:?}", model.cap)
        }
        _ => {
            let (&run, budget) = model.budgets.iter_mut().nth(rng.usize(..RUNS)).expect("a run");
            let Some(budget) = budget else { return "nothing".into() };
            let more = rng.i64(1..500);
            *budget += more;
            let sql = "update nofx.run set budget_usd_micros = budget_usd_micros + $2 where id = $1";
            lab.admin.execute(sql, &[&run.0, &more]).await.unwrap();
            format!("raise by {more}")
        }
    }
}

async fn sequence(seed: u64) {
    let (lab, mut rng, mut model) = (Lab::new().await, Rng::with_seed(seed), Model::default());
    let mut keys = Vec::new();
    for at in 0..RUNS {
        let budget = (at > 0).then(|| rng.i64(300..2_000));
        let run = lab.submit(&plan(2, budget.map(|budget| MicroUsd(budget).dollars()).as_deref())).await;
        model.budgets.insert(run, budget);
        for step in ["s0", "s1"] {
            keys.push(AttemptKey::of(&claim(&lab, run, lab.step(run, step).await).await));
        }
    }
    for at in 0..OPERATIONS {
        let done = operate(&lab, &mut model, &keys, &mut rng).await;
        check(&lab, &model, &format!("seed {seed}, operation {at}: {done}")).await;
    }
    overdue(&lab).await;
    sweep(&lab.ctx).await.unwrap();
    model.lose_open_calls();
    check(&lab, &model, &format!("seed {seed}, at the end")).await;
    assert_eq!(model.reserved(|_| true), 0);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn any_sequence_ends_with_nothing_reserved_and_no_budget_passed() {
    futures::future::join_all((0..10).map(sequence)).await;
}
