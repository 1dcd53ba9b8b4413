//! A claimed step, as its handler sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::id::{ArtifactId, RunId, StepId, TenantId};
use super::outcome::{ArtifactRef, Workspace};

/// A step that this attempt owns.
#[derive(Debug, Clone)]
pub struct ClaimedStep {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub step_id: StepId,
    pub name: String,
    pub tool: String,
    /// Number of the attempt, from 1. It names the storage folder and fences every write.
    pub attempt: u32,
    /// The inputs with their references resolved.
    pub inputs: Value,
    pub goal: String,
    pub workspace: Option<Workspace>,
    /// The artifacts that the inputs name. All of them exist.
    pub artifacts: BTreeMap<ArtifactId, ArtifactRef>,
    /// How long the handler may run before the worker stops it.
    pub timeout: Duration,
    /// The plan's timeout in seconds. For a manual step it is how long its gate waits.
    pub timeout_s: Option<u32>,
}
