//! What a sentence needs of an event.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::budget_gate::WaitsFor;
use crate::domain::gate::Decision;
use crate::domain::model_call::Because;
use crate::domain::{ArtifactId, GateId, MicroUsd, Timestamp};
use crate::view::Event;

/// An event of a run, or of a tenant: then `subject` says what changed.
#[derive(Debug, Clone, Deserialize)]
pub struct TimelineEvent {
    /// Sequence number in the run. 0 for an event of a tenant.
    #[serde(default)]
    pub seq: i64,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub step: Option<EventStep>,
    pub timestamp: Timestamp,
    /// The table of a rule.
    #[serde(default)]
    pub subject: Option<String>,
    #[serde(default, deserialize_with = "payload")]
    pub payload: Payload,
}

/// The step of an event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EventStep {
    pub name: String,
    /// Its place in the plan, if the reader knows it.
    #[serde(default)]
    pub ordinal: Option<i64>,
    /// Start of its first attempt in the run's generation. Without it, the start among the same events counts.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
}

/// Fields of all payloads that sentences use. `docs/events.md` describes them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Payload {
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub decision: Option<Decision>,
    pub attempt: Option<u32>,
    pub generation: Option<u32>,
    /// Number of steps of a new run.
    pub steps: Option<u64>,
    pub error: Option<Message>,
    pub failure: Option<Message>,
    pub delay_ms: Option<i64>,
    pub workers_lost: Option<u64>,
    /// Name of the gate whose findings a step repairs, and which time the step generates.
    pub gate: Option<String>,
    pub round: Option<u32>,
    pub max_attempts: Option<u32>,
    pub was: Option<String>,
    /// People who have approved, and how many must.
    pub approved: Option<u64>,
    pub required: Option<u64>,
    pub gate_id: Option<GateId>,
    pub gate_type: Option<String>,
    /// Whom a link is for.
    #[serde(rename = "for")]
    pub person: Option<String>,
    pub artifact_id: Option<ArtifactId>,
    pub name: Option<String>,
    pub provider: Option<String>,
    pub model: Option<String>,
    pub usable: Option<bool>,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub fallback_from: Option<Vec<Fallback>>,
    pub late_attempt: Option<u32>,
    pub model_requested: Option<String>,
    pub because: Option<Because>,
    pub reserved_usd_micros: Option<MicroUsd>,
    pub cost_usd_micros: Option<MicroUsd>,
    pub age_s: Option<i64>,
    pub saved_usd_micros: Option<MicroUsd>,
    pub corrects_usd_micros: Option<MicroUsd>,
    pub estimated: Option<bool>,
    pub exceeds_reserved: Option<bool>,
    pub reported_usd_micros: Option<MicroUsd>,
    pub waits_for: Option<WaitsFor>,
    /// `run`, `day` or `month`.
    pub scope: Option<String>,
    pub cap_usd_micros: Option<MicroUsd>,
    pub needs_usd_micros: Option<MicroUsd>,
    pub from_usd_micros: Option<MicroUsd>,
    pub to_usd_micros: Option<MicroUsd>,
    pub table: Option<String>,
    pub op: Option<String>,
    pub rows: Option<u64>,
    /// Version of a policy.
    pub version: Option<u64>,
    pub moved: Option<u64>,
    /// A rule before and after its change.
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// The text of an error.
#[derive(Debug, Clone, Deserialize)]
pub struct Message {
    #[serde(default)]
    pub message: String,
}

/// A provider that gave no usable answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Fallback {
    #[serde(default)]
    pub model: String,
}

/// A payload of another shape has none of the fields. Its event still has a sentence.
fn payload<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
    Value::deserialize(deserializer).map(|value| serde_json::from_value(value).unwrap_or_default())
}

impl From<&Event> for TimelineEvent {
    fn from(event: &Event) -> Self {
        Self {
            seq: event.seq,
            kind: event.kind.clone(),
            step: event.step.as_ref().map(|name| EventStep { name: name.clone(), ordinal: None, started_at: None }),
            timestamp: event.timestamp.clone(),
            subject: None,
            payload: serde_json::from_str(event.payload.get()).unwrap_or_default(),
        }
    }
}

impl TimelineEvent {
    /// An event of a tenant: `actor` changed `subject`, a policy or the rule of a table.
    pub fn of_tenant(kind: &str, subject: &str, actor: &str, payload: &RawValue, timestamp: &Timestamp) -> Self {
        let payload: Payload = serde_json::from_str(payload.get()).unwrap_or_default();
        Self {
            seq: 0,
            kind: kind.to_owned(),
            step: None,
            timestamp: timestamp.clone(),
            subject: Some(subject.to_owned()),
            payload: Payload { actor: Some(actor.to_owned()), ..payload },
        }
    }

    pub(super) fn step_name(&self) -> Option<&str> {
        self.step.as_ref().map(|step| step.name.as_str())
    }

    /// Whether a person decided the gate of this event.
    pub(super) fn is_decision(&self) -> bool {
        self.kind.starts_with("gate.") && self.kind != "gate.linked" && self.payload.actor.is_some()
    }
}
