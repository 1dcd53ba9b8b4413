//! Gates `budget`: what a step that waits for money waits for, and where it goes on.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::claimed_step::ClaimedStep;
use super::gate::BUDGET;
use super::id::GateId;
use super::model_call::{BudgetScope, Shortfall};
use super::money::MicroUsd;
use super::outcome::{NewEvent, NewGate, NewGateStatus, OnPass, Outcome};

/// What lets a step go on that waits for money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// People who raise the budget of the run.
    Approval,
    /// A policy that raises the budget of the tenant, or the next day or month.
    Policy,
    /// The end of requests in flight: only what they have reserved is in the way.
    Reserved,
}

/// The request that a budget refused, and the models that failed before it. The step resumes here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRequest {
    pub provider: String,
    pub model: String,
    #[serde(default)]
    pub failures: Vec<FailedModel>,
}

/// A model that gave no usable answer, and why. Safe to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedModel {
    pub provider: String,
    pub model: String,
    pub kind: String,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Number of requests: 0 if it was not asked.
    pub tries: u32,
}

impl WaitsFor {
    /// What a gate waits for. `None` if it does not wait for money.
    pub fn of(gate_type: &str, subject: Option<&Map<String, Value>>) -> Option<Self> {
        let field = |name: &str| subject.and_then(|subject| subject.get(name));
        // Gates of earlier releases do not say it.
        let of_scope = || if field("scope") == Some(&json!("run")) { Self::Approval } else { Self::Policy };
        (gate_type == BUDGET)
            .then(|| field("waits_for").and_then(|what| Self::deserialize(what).ok()).unwrap_or_else(of_scope))
    }

    /// How the step goes on, if nobody has to decide.
    pub fn by_itself(self) -> Option<&'static str> {
        match self {
            Self::Approval => None,
            Self::Policy => Some("goes on when the policy raises models.budgets, or in the next day or month (UTC)"),
            Self::Reserved => Some("goes on by itself when requests in flight end"),
        }
    }
}

impl Shortfall {
    /// How much the cap must be raised so that the request fits.
    pub fn missing(&self) -> MicroUsd {
        self.spent + self.reserved + self.needs - self.cap
    }

    pub fn waits_for(&self) -> WaitsFor {
        match self.scope {
            _ if self.spent + self.needs <= self.cap => WaitsFor::Reserved,
            BudgetScope::Run => WaitsFor::Approval,
            BudgetScope::Day | BudgetScope::Month => WaitsFor::Policy,
        }
    }

    /// What a person reads at the gate, and how the step goes on.
    fn reason(&self, request: Option<&PendingRequest>) -> String {
        let Self { scope, cap, spent, reserved, needs } = self;
        let missing = self.missing();
        let to = request.map(|request| format!(", to {}/{},", request.provider, request.model)).unwrap_or_default();
        let facts = format!(
            "{scope} has {cap}: {spent} is spent, {reserved} is reserved for requests in flight, and the next request{to} needs up to {needs}."
        );
        let by_time = |period: &str| {
            format!(
                "{facts} It goes on by itself the next {period} (UTC), or when a policy raises models.budgets.{period}_usd by {missing}."
            )
        };
        match (self.waits_for(), scope) {
            (WaitsFor::Reserved, _) => {
                format!("{facts} It goes on by itself when those requests end. Nobody has to decide.")
            }
            (_, BudgetScope::Run) => format!("{facts} Approve to raise the run's budget by {missing}."),
            (_, BudgetScope::Day) => by_time("day"),
            (_, BudgetScope::Month) => by_time("month"),
        }
    }

    /// The subject of the gate, and the payload of its event.
    fn subject(&self, step: &ClaimedStep, request: Option<&PendingRequest>) -> Map<String, Value> {
        let mut subject = match json!(self) {
            Value::Object(subject) => subject,
            _ => Map::new(),
        };
        subject.insert("missing_usd_micros".to_owned(), json!(self.missing()));
        subject.insert("waits_for".to_owned(), json!(self.waits_for()));
        subject.insert("attempt".to_owned(), json!(step.attempt));
        subject.extend(request.map(|request| ("request".to_owned(), json!(request))));
        subject
    }
}

impl Outcome {
    /// A budget does not cover a request: the step waits at a gate `budget`, and charges no attempt. The next attempt finds the
    /// request in [`ClaimedStep::pending_request`]. Add the artifacts and events of what was done.
    pub fn budget_exhausted(step: &ClaimedStep, shortfall: &Shortfall, request: Option<&PendingRequest>) -> Self {
        let subject = shortfall.subject(step, request);
        let gate = NewGate {
            // A message that is delivered twice makes one gate.
            id: GateId(Uuid::new_v5(&step.step_id.0, format!("budget {}", step.attempt).as_bytes())),
            gate_type: BUDGET.to_owned(),
            status: NewGateStatus::Pending,
            subject: Some(subject.clone()),
            evidence_uri: None,
            on_pass: OnPass::Resume,
            expires_after_s: None,
            reason: Some(shortfall.reason(request)),
        };
        let event = NewEvent { kind: "budget.exhausted".to_owned(), payload: Value::Object(subject) };
        Self { events: vec![event], ..Self::blocked(gate) }
    }
}

impl ClaimedStep {
    /// The request that a budget refused to the attempt before this one, if there is one.
    pub fn pending_request(&self) -> Option<PendingRequest> {
        let of_attempt_before = |subject: &&Map<String, Value>| {
            subject.get("attempt").and_then(Value::as_u64) == Some(u64::from(self.attempt).saturating_sub(1))
        };
        let passed = self.decisions.iter().filter(|decision| decision.gate_type == BUDGET);
        let subject = passed.filter_map(|decision| decision.subject.as_ref()).find(of_attempt_before)?;
        PendingRequest::deserialize(subject.get("request")?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Shortfall = Shortfall {
        scope: BudgetScope::Run,
        cap: MicroUsd(1_000_000),
        spent: MicroUsd(800_000),
        reserved: MicroUsd(100_000),
        needs: MicroUsd(250_000),
    };

    #[test]
    fn a_gate_says_what_it_needs_and_what_helps() {
        let request = PendingRequest { provider: "openai".into(), model: "gpt-6-luna".into(), failures: Vec::new() };
        assert_eq!((SHORT.missing(), SHORT.waits_for()), (MicroUsd(150_000), WaitsFor::Approval));
        assert_eq!(
            SHORT.reason(Some(&request)),
            "The budget of the run has $1.00: $0.80 is spent, $0.10 is reserved for requests in flight, and the next request, to \
             openai/gpt-6-luna, needs up to $0.25. Approve to raise the run's budget by $0.15."
        );
        let day = Shortfall { scope: BudgetScope::Day, ..SHORT };
        assert_eq!(day.waits_for(), WaitsFor::Policy);
        assert!(
            day.reason(None).starts_with("The tenant's budget of the day has $1.00")
                && day.reason(None).contains("models.budgets.day_usd by $0.15"),
            "{}",
            day.reason(None)
        );
    }

    #[test]
    fn nobody_is_asked_while_only_reserved_money_is_in_the_way() {
        for scope in [BudgetScope::Run, BudgetScope::Day, BudgetScope::Month] {
            let short = Shortfall { scope, spent: MicroUsd(750_000), reserved: MicroUsd(250_000), ..SHORT };
            assert_eq!(short.waits_for(), WaitsFor::Reserved);
            assert!(short.reason(None).ends_with("Nobody has to decide."), "{}", short.reason(None));
            let one_more = Shortfall { spent: MicroUsd(750_001), ..short };
            assert_ne!(one_more.waits_for(), WaitsFor::Reserved);
        }
    }

    #[test]
    fn gates_of_earlier_releases_wait_for_people_or_the_policy() {
        let of = |subject: Value| WaitsFor::of(BUDGET, subject.as_object());
        assert_eq!(of(json!({ "scope": "run" })), Some(WaitsFor::Approval));
        assert_eq!(of(json!({ "scope": "month" })), Some(WaitsFor::Policy));
        assert_eq!(of(json!({ "scope": "run", "waits_for": "reserved" })), Some(WaitsFor::Reserved));
        assert_eq!(WaitsFor::of("manual:budget", None), None);
    }
}
