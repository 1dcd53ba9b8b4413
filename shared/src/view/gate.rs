//! Gates.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::gate::Decision;
use crate::domain::{ArtifactId, GateId, GateStatus, RunId, StepId, Timestamp};

/// A gate before a step or before a run's end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Gate {
    pub id: GateId,
    pub run_id: RunId,
    /// Null for a gate of the run itself.
    pub step_id: Option<StepId>,
    /// `manual:deploy`, `gate:lint`, or any name given to `POST /gates`.
    pub gate_type: String,
    pub status: GateStatus,
    pub on_pass: OnPass,
    /// The generation of the run that it belongs to.
    pub generation: u32,
    /// What is judged or decided: for a gate of a workspace, the digests of its trees. Null if the gate has none.
    #[serde(default)]
    pub subject: Option<Map<String, Value>>,
    pub evidence_uri: Option<String>,
    /// The artifact at `evidence_uri`, if the gate's own step stored it: `GET /artifacts/{id}/download`.
    #[serde(default)]
    pub evidence_id: Option<ArtifactId>,
    pub reason: Option<String>,
    pub approved_by: Option<String>,
    pub approved_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub decided_at: Option<Timestamp>,
    /// Null until somebody decides.
    pub decision: Option<GateDecision>,
}

/// A decision about a gate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct GateDecision {
    pub decision: Decision,
    pub actor: String,
    pub reason: Option<String>,
    pub created_at: Timestamp,
}

/// What happens when the gate passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnPass {
    /// The waiting step succeeds.
    Finish,
    /// The waiting step becomes ready again.
    Resume,
    /// The step, or the end of the run, has one blocker less.
    Release,
}
