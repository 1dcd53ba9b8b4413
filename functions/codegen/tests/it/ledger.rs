//! A ledger of model calls in memory: what the database does, as far as codegen can see it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::ready;
use shared::domain::model_call::{BudgetScope, Charge, DeploymentCooldown};
use shared::domain::model_policy::{ModelPolicy, PolicyPrice};
use shared::domain::{CallEnd, CallProgress, CallStart, MicroUsd, ModelTerms, Permit, Shortfall};
use shared::worker::{ModelCalls, Ownership};

#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    starts: Vec<CallStart>,
    ends: Vec<CallEnd>,
    progress: Vec<CallProgress>,
    cooldowns: BTreeMap<String, DeploymentCooldown>,
    policy: ModelPolicy,
    cap: Option<i64>,
    spent: i64,
    reserved: i64,
    /// How many starts and checks the attempt survives.
    owned_for: Option<usize>,
}

impl Ledger {
    pub fn set_policy(&self, policy: ModelPolicy) {
        self.0.lock().unwrap().policy = policy;
    }

    /// Prices in micro-dollars per million tokens, the same for each of these models.
    pub fn set_prices(&self, models: &[(&str, &str)]) {
        let price = |(provider, model): &(&str, &str)| PolicyPrice {
            provider: (*provider).to_owned(),
            model: (*model).to_owned(),
            input: 3_000_000,
            output: 15_000_000,
            cached_input: Some(300_000),
            cache_write: Some(3_750_000),
        };
        self.0.lock().unwrap().policy.prices = models.iter().map(price).collect();
    }

    /// The budget of the run, in micro-dollars.
    pub fn set_cap(&self, cap: i64) {
        self.0.lock().unwrap().cap = Some(cap);
    }

    /// The attempt loses its step after this many starts and checks.
    pub fn lose_after(&self, checks: usize) {
        self.0.lock().unwrap().owned_for = Some(checks);
    }

    pub fn cool(&self, deployment: &str, kind: &str, left: Duration) {
        let cooldown = DeploymentCooldown {
            deployment: deployment.to_owned(),
            left_ms: u64::try_from(left.as_millis()).unwrap(),
            kind: kind.to_owned(),
            reason: "a reason".to_owned(),
        };
        self.0.lock().unwrap().cooldowns.insert(deployment.to_owned(), cooldown);
    }

    pub fn cooldowns(&self) -> Vec<DeploymentCooldown> {
        self.0.lock().unwrap().cooldowns.values().cloned().collect()
    }

    pub fn terms(&self) -> ModelTerms {
        let book = self.0.lock().unwrap();
        ModelTerms {
            policy: book.policy.clone(),
            policy_version: 7,
            cooldowns: book.cooldowns.values().cloned().collect(),
            is_budgeted: book.cap.is_some(),
        }
    }

    pub fn starts(&self) -> Vec<CallStart> {
        self.0.lock().unwrap().starts.clone()
    }

    pub fn ends(&self) -> Vec<CallEnd> {
        self.0.lock().unwrap().ends.clone()
    }

    pub fn progress(&self) -> Vec<CallProgress> {
        self.0.lock().unwrap().progress.clone()
    }

    pub fn spent(&self) -> i64 {
        self.0.lock().unwrap().spent
    }

    /// Each start has one end, in the same order, and nothing stays reserved.
    pub fn assert_settled(&self) {
        let book = self.0.lock().unwrap();
        let ids = |list: &mut dyn Iterator<Item = uuid::Uuid>| list.collect::<Vec<_>>();
        assert_eq!(ids(&mut book.starts.iter().map(|start| start.id)), ids(&mut book.ends.iter().map(|end| end.id)));
        assert_eq!(book.reserved, 0);
        assert!(book.cap.is_none_or(|cap| book.spent <= cap), "{} spent", book.spent);
    }

    pub fn calls(&self) -> ModelCalls {
        let (check, start, end, watch) = (self.clone(), self.clone(), self.clone(), self.clone());
        let polls = AtomicUsize::new(0);
        let ownership = Ownership::new(Duration::from_millis(20), move || {
            polls.fetch_add(1, Ordering::SeqCst);
            ready(check.0.lock().unwrap().is_owned()).boxed()
        });
        ModelCalls::new(
            ownership,
            move |call| ready(Ok(start.0.lock().unwrap().start(call))).boxed(),
            move |call| {
                end.0.lock().unwrap().end(call);
                ready(Ok(())).boxed()
            },
        )
        .with_progress(move |progress| {
            watch.0.lock().unwrap().progress.push(progress);
            ready(Ok(())).boxed()
        })
    }
}

impl Book {
    fn is_owned(&mut self) -> bool {
        match &mut self.owned_for {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    fn start(&mut self, call: CallStart) -> Permit {
        if !self.is_owned() {
            return Permit::Lost;
        }
        if let Some(cap) = self.cap {
            let Some(needs) = call.reserve else { return Permit::Unpriced { scope: BudgetScope::Run } };
            if self.spent + self.reserved + needs.0 > cap {
                let [cap, spent, reserved] = [cap, self.spent, self.reserved].map(MicroUsd);
                return Permit::OverBudget(Shortfall { scope: BudgetScope::Run, cap, spent, reserved, needs });
            }
        }
        self.reserved += call.reserve.map_or(0, |reserve| reserve.0);
        self.starts.push(call);
        Permit::Granted
    }

    fn end(&mut self, end: CallEnd) {
        let start = self.starts.iter().find(|start| start.id == end.id).expect("a start");
        let reserve = start.reserve.map_or(0, |reserve| reserve.0);
        self.reserved -= reserve;
        self.spent += match end.charge {
            Charge::Nothing | Charge::Unpriced => 0,
            Charge::Usage(cost) => cost.0.min(reserve),
            Charge::Ceiling => reserve,
        };
        let of_key = start.deployment.clone();
        let of_model = format!("{of_key}/{}", start.model);
        if let Some(cooldown) = &end.cooldown {
            let deployment = if cooldown.of_model { of_model } else { of_key };
            let (left_ms, kind, reason) = (cooldown.for_ms, cooldown.kind.clone(), cooldown.reason.clone());
            self.cooldowns.insert(deployment.clone(), DeploymentCooldown { deployment, left_ms, kind, reason });
        } else if end.recovered {
            self.cooldowns.retain(|deployment, _| *deployment != of_key && *deployment != of_model);
        }
        self.ends.push(end);
    }
}
