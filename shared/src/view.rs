//! What the API shows: a struct for each resource, written by the functions and read by clients. Knows neither the
//! database nor HTTP. JSON of plans, outcomes and payloads stays text, so that it is passed on without being parsed.

mod artifact;
mod event;
mod gate;
mod plan;
mod rule;
mod run;
mod step;

pub use artifact::{Artifact, ArtifactPage, ArtifactSummary, Upload};
pub use event::Event;
pub use gate::{Gate, GateDecision, OnPass};
pub use plan::{CheckedStep, OutputReference, PlanChecked};
pub use rule::{ForeignKey, Rule, RuleChange, RuleDeleted, RuleDetail, RulePage, Target};
pub use run::{Changed, Lineage, LineageEdge, LineageNode, Run, RunChange, RunCreated, RunDetail, RunPage, RunSummary};
pub use step::{Failure, Step, StepPage, StepWhy, WaitingGate, WaitingParent};

use serde::{Deserialize, Serialize};

/// A value that is too large to be shown in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Omitted {
    /// Size of the value.
    pub bytes: u64,
    /// Address that shows it.
    #[serde(default)]
    pub href: String,
}

/// The answer of `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Health {
    /// `ok`.
    pub status: String,
    pub version: String,
}
