//! Resources of the API: a struct for each, which functions write and clients read. Independent of the database and of
//! HTTP. JSON of plans, outcomes and payloads stays text, so that it is not parsed on the way.

mod account;
mod artifact;
mod audit;
mod cost;
mod event;
mod gate;
mod key;
mod limits;
mod lineage;
pub mod next;
mod plan;
mod policy;
mod queue;
mod rule;
mod run;
pub mod sentence;
mod step;

pub use account::{
    AuthSettings, Member, MemberPage, MemberRemoved, Token, TokenCreated, TokenEnded, TokenPage, Whoami,
};
pub use artifact::{Artifact, ArtifactPage, ArtifactStorage, ArtifactSummary, Restore, StorageChange, Upload};
pub use audit::{AuditActor, AuditEntry, AuditHead, AuditPage};
pub use cost::{BudgetState, Cost, Costs, RunCosts};
pub use event::Event;
pub use gate::{Approval, Gate, GateDecision, GateLink, MayDecide, OnPass, Standing, WhyNot};
pub use key::{KeyPurpose, SigningKey, SigningKeys};
pub use limits::{Limits, Quantities};
pub use plan::{CheckedStep, OutputReference, PlanChecked};
pub use policy::{EffectivePolicy, Policy, PolicyPage, PolicyVersion};
pub use queue::{DeadLetter, DeadLetterStep, QueueDepth, QueueDetail, QueueList, Redriven};
pub use rule::{ForeignKey, Rule, RuleChange, RuleDeleted, RuleDetail, RulePage, Target};
pub use run::{Changed, Lineage, LineageEdge, LineageNode, Run, RunChange, RunCreated, RunDetail, RunPage, RunSummary};
pub use step::{Failure, Step, StepPage, StepWhy, WaitingGate, WaitingParent};

use serde::{Deserialize, Serialize};

/// A value that is too large for its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Omitted {
    /// Size of the value as JSON.
    pub bytes: u64,
    /// Address of a resource with the value.
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
