//! Steps, and why one waits.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Omitted;
use crate::domain::{GateId, GateStatus, RunStatus, StepId, StepStatus, Timestamp};

/// A step. In lists, large inputs and outputs are null and `.._omitted` says so.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Step {
    pub id: StepId,
    pub name: String,
    pub tool: String,
    pub status: StepStatus,
    /// As posted: references stand in it.
    pub inputs: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs_omitted: Option<Omitted>,
    pub outputs: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs_omitted: Option<Omitted>,
    pub error: Option<Failure>,
    /// Number of the newest attempt; 0 before the first.
    pub attempt: u32,
    /// Parents that have not succeeded, and gates that have not passed.
    pub blockers: u32,
    /// Names of its parents.
    pub depends_on: Vec<String>,
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
    /// Whether the message is cut and the details are left out, because there is too much of them for a list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_shortened: bool,
}

/// What a step waits for: a sentence, and the facts behind it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct StepWhy {
    /// The sentence.
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
    /// Attempts of this generation whose worker never answered.
    pub workers_lost: u32,
    pub blockers: u32,
    pub error: Option<Failure>,
    pub ready_at: Option<Timestamp>,
    /// Wake-ups that were sent since it became ready, without the first.
    pub notify_count: u32,
    /// Until when its worker owns it.
    pub lease_until: Option<Timestamp>,
    /// Parents that have not succeeded.
    pub parents: Vec<WaitingParent>,
    /// Gates of this generation, the pending ones first.
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
    pub expires_at: Option<Timestamp>,
}
