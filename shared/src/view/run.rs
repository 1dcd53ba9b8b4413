//! Runs.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{ArtifactStorage, ArtifactSummary, Failure, Omitted, Step};
use crate::domain::{ArtifactId, MicroUsd, RunId, RunStatus, StepId, Timestamp};

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Run {
    pub id: RunId,
    pub status: RunStatus,
    pub goal: String,
    /// The plan as posted. Null if it is too large; then `plan_omitted` gives its size and address.
    pub plan: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_omitted: Option<Omitted>,
    /// sha256 of the plan's canonical JSON (RFC 8785), in lower-case hex.
    pub plan_digest: String,
    /// 1 for a new run. Each retry adds one.
    pub generation: u32,
    /// Why the run failed, if no step failed.
    pub failure: Option<Failure>,
    pub timeout_s: Option<u32>,
    pub deadline_at: Option<Timestamp>,
    /// Who started it. Null if that was not recorded.
    #[serde(default)]
    pub created_by: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub paused_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// What its model calls may cost.
    #[serde(default)]
    pub budget_usd_micros: Option<MicroUsd>,
    #[serde(default)]
    pub spent_usd_micros: MicroUsd,
    #[serde(default)]
    pub reserved_usd_micros: MicroUsd,
}

/// A run in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RunSummary {
    pub id: RunId,
    pub status: RunStatus,
    pub goal: String,
    pub generation: u32,
    /// Who started it. Null if that was not recorded.
    #[serde(default)]
    pub created_by: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub failure: Option<Failure>,
}

/// A page of runs, newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RunPage {
    pub runs: Vec<RunSummary>,
    /// `after` of the next page.
    pub next: Option<RunId>,
}

/// A run with the first page of its steps and of its artifacts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RunDetail {
    pub run: Run,
    pub steps: Vec<Step>,
    pub artifacts: Vec<ArtifactSummary>,
    /// `after` of the next page of steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps_next: Option<StepId>,
    /// `after` of the next page of artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts_next: Option<ArtifactId>,
}

/// A created run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RunCreated {
    pub id: RunId,
    pub status: RunStatus,
}

/// What cancelling, pausing, resuming or retrying a run did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RunChange {
    pub id: RunId,
    /// The run's current status.
    pub status: RunStatus,
    pub result: Changed,
    /// Cancel: names of the steps that will not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Vec<String>>,
    /// Cancel: names of the steps that were running. Their results do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was_running: Option<Vec<String>>,
    /// Pause: names of the running steps. Their results count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still_running: Option<Vec<String>>,
    /// Retry: the new generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
}

/// What changed of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Changed {
    Cancelled,
    Paused,
    Resumed,
    Retried,
    /// The run was already in this state.
    Unchanged,
}

/// Artifacts of a run, and which was made from which.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Lineage {
    pub run_id: RunId,
    pub nodes: Vec<LineageNode>,
    pub edges: Vec<LineageEdge>,
    /// True if the lineage has more nodes or edges than are shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// An artifact of a lineage. An uploaded one has no run and no step.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct LineageNode {
    pub id: ArtifactId,
    pub run_id: Option<RunId>,
    pub step_id: Option<StepId>,
    /// The step's name.
    pub step: Option<String>,
    pub attempt: Option<u32>,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// sha256 in lower-case hex.
    pub hash: String,
    /// Where its bytes are. Absent if they can be read at once and nobody wants something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<ArtifactStorage>,
}

/// `to` was made from `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct LineageEdge {
    pub from: ArtifactId,
    pub to: ArtifactId,
}
