//! A step at work, as its handler sees it.

use std::time::Duration;

use serde_json::Value;

use super::id::{RunId, StepId, TenantId};
use super::outcome::Workspace;

/// A step that this attempt owns.
#[derive(Debug, Clone)]
pub struct ClaimedStep {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub step_id: StepId,
    pub name: String,
    pub tool: String,
    /// Number of this try, from 1; names the storage folder and fences every write.
    pub attempt: u32,
    /// References already resolved.
    pub inputs: Value,
    pub goal: String,
    pub workspace: Option<Workspace>,
    /// How long the handler may work; the worker stops it there.
    pub timeout: Duration,
    /// What the plan says, in seconds; for a manual step, how long its gate waits.
    pub timeout_s: Option<u32>,
}
