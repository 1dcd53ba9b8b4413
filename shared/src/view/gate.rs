//! Gates.

use serde::{Deserialize, Serialize};

use crate::domain::gate::Decision;
use crate::domain::{GateId, GateStatus, RunId, StepId, Timestamp};

/// A barrier in front of a step or of a run's end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Gate {
    pub id: GateId,
    pub run_id: RunId,
    /// Null for a gate of the run itself.
    pub step_id: Option<StepId>,
    /// `manual:deploy`, `gate:lint`, or what its author called it.
    pub gate_type: String,
    pub status: GateStatus,
    pub on_pass: OnPass,
    /// The run's generation that it belongs to.
    pub generation: u32,
    pub evidence_uri: Option<String>,
    pub reason: Option<String>,
    pub approved_by: Option<String>,
    pub approved_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub decided_at: Option<Timestamp>,
    /// Null while nobody has decided.
    pub decision: Option<GateDecision>,
}

/// What somebody decided about a gate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct GateDecision {
    pub decision: Decision,
    pub actor: String,
    pub reason: Option<String>,
    pub created_at: Timestamp,
}

/// What passing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnPass {
    /// The step that waits has succeeded.
    Finish,
    /// The step that waits is ready again.
    Resume,
    /// One thing less stands before the step or the run's end.
    Release,
}
