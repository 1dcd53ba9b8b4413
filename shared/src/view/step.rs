//! Steps, and what one waits for.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Omitted;
use crate::domain::{GateId, GateStatus, MicroUsd, RunStatus, StepId, StepStatus, Timestamp};

/// A step. In lists, large inputs and outputs are null, and `inputs_omitted` and `outputs_omitted` give their size and
/// address.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Step {
    pub id: StepId,
    pub name: String,
    pub tool: String,
    pub status: StepStatus,
    /// The inputs as posted, with references.
    pub inputs: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs_omitted: Option<Omitted>,
    pub outputs: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs_omitted: Option<Omitted>,
    pub error: Option<Failure>,
    /// Number of the latest attempt. 0 before the first.
    pub attempt: u32,
    /// Number of parents that have not succeeded and gates that have not passed.
    pub blockers: u32,
    /// Names of its parents.
    pub depends_on: Vec<String>,
    /// What its model calls have cost in all attempts, in micro-dollars. Absent if it made none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd_micros: Option<MicroUsd>,
    pub ready_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// A page of steps in the plan's order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct StepPage {
    pub steps: Vec<Step>,
    /// `after` of the next page.
    pub next: Option<StepId>,
}

/// Why a step or a run failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Failure {
    /// For programs, in snake_case.
    pub code: String,
    /// For people.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<RawValue>>,
    /// True if the message is cut and the details are left out, because they are too large for a list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_shortened: bool,
}

/// What a step waits for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct StepWhy {
    /// A sentence for people.
    #[serde(default)]
    pub why: String,
    pub name: String,
    pub tool: String,
    pub handler: String,
    pub status: StepStatus,
    pub run_status: RunStatus,
    pub attempt: u32,
    /// Attempts of this generation that failed.
    pub failures: u32,
    pub max_attempts: u32,
    /// Attempts of this generation whose worker was lost.
    pub workers_lost: u32,
    pub blockers: u32,
    pub error: Option<Failure>,
    pub ready_at: Option<Timestamp>,
    /// Wake-ups sent by the sweeper since the step became ready.
    pub notify_count: u32,
    /// End of its worker's lease.
    pub lease_until: Option<Timestamp>,
    /// Parents that have not succeeded.
    pub parents: Vec<WaitingParent>,
    /// Gates of this generation, pending ones first.
    pub gates: Vec<WaitingGate>,
}

/// A parent that has not succeeded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct WaitingParent {
    pub name: String,
    pub status: StepStatus,
}

/// A gate of a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct WaitingGate {
    pub id: GateId,
    pub gate_type: String,
    pub status: GateStatus,
    pub reason: Option<String>,
    /// Of a gate `budget`: the money that the step needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Map<String, Value>>,
    pub expires_at: Option<Timestamp>,
    /// Whether it is pending and its time is over: nobody can decide it any more, and the next sweep ends it.
    #[serde(default)]
    pub is_over: bool,
}
