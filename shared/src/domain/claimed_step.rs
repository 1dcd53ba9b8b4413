//! A claimed step, as its handler sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::base_origin::BaseOrigin;
use super::id::{ArtifactId, GateId, RunId, StepId, TenantId};
use super::model_call::ModelTerms;
use super::outcome::{ArtifactRef, Workspace};
use super::policy::Policy;
use super::repair::RepairTask;
use super::status::GateStatus;
use super::timestamp::Timestamp;

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
    /// The step that fetched the workspace's base. `None` if no step `workspace:git` of the tenant did, and unless the
    /// policy asks for it (`trusted_base: "git"`).
    pub base_origin: Option<BaseOrigin>,
    /// The artifacts that the inputs name. All of them exist.
    pub artifacts: BTreeMap<ArtifactId, ArtifactRef>,
    /// How long the handler may run before the worker stops it.
    pub timeout: Duration,
    /// The plan's timeout in seconds. For a manual step it is how long its gate waits.
    pub timeout_s: Option<u32>,
    /// The tenant's policy at the time of the claim. Only handlers that take a workspace get it, others the default.
    pub policy: Policy,
    /// Gates of this step that passed or were waived since the run was created or retried, oldest first. At most the newest
    /// 100, and only for handlers that take a workspace or call models.
    pub decisions: Vec<GateDecision>,
    /// What binds its model calls. Only handlers that call models get it, others the default.
    pub models: ModelTerms,
    /// What the attempt has to repair, if a gate failed on what the step made before.
    pub repair: Option<RepairTask>,
}

/// A gate that lets its step go on. It counts only for its subject: compare that with what is at hand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GateDecision {
    pub gate_id: GateId,
    pub gate_type: String,
    /// `Passed` or `Waived`.
    pub status: GateStatus,
    /// `NewGate::subject`. Only handlers set it, never clients.
    pub subject: Option<Map<String, Value>>,
    /// The person who approved or waived it. `None` if a handler passed it.
    pub decided_by: Option<String>,
    pub decided_at: Timestamp,
}
