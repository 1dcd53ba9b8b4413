//! Steps: claim and finish.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_postgres::Transaction;
use tokio_postgres::types::{Json, Type};
use uuid::Uuid;

use super::pool::{Database, Param, answer, database_error};
use crate::domain::artifact_storage::StorageState;
use crate::domain::base_origin::BaseOrigin;
use crate::domain::model_call::DeploymentCooldown;
use crate::domain::repair::RepairTask;
use crate::domain::{
    ArtifactId, ArtifactRef, GateDecision, NewArtifact, NewEvent, NewGate, RunId, StepError, StepId, StepStatus,
    TenantId, WakeUp,
};
use crate::error::Error;

/// A step to claim.
#[derive(Debug, Clone, Serialize)]
pub struct ClaimItem {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub step_id: StepId,
    /// Rest of the invocation in seconds.
    pub lease_s: u32,
    /// Maximum size of the values of its references, in bytes.
    pub refs_bytes: usize,
    /// Whether the handler needs `Claimed::terms`. The first item of a claim decides for all.
    pub terms: bool,
}

/// A step that an attempt owns. JSON from plans and outcomes stays text here, so that unreadable JSON fails only its
/// own step.
#[derive(Debug, Clone, Deserialize)]
pub struct Claimed {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub step_id: StepId,
    pub name: String,
    pub tool: String,
    pub attempt: u32,
    /// Earlier failures of this generation.
    pub failures: u32,
    pub max_attempts: u32,
    pub backoff_ms: u32,
    pub timeout_s: Option<u32>,
    pub inputs: Box<RawValue>,
    /// The values that the inputs refer to. Missing ones are absent. `None` if they exceed `ClaimItem::refs_bytes`.
    pub refs: Option<Vec<Ref>>,
    pub goal: String,
    /// A `domain::Workspace`.
    pub workspace: Option<Box<RawValue>>,
    pub traceparent: Option<String>,
    /// [`Terms`], if the claim asked for them.
    #[serde(default)]
    pub terms: Option<Box<RawValue>>,
}

/// What binds a step that judges code or calls models.
#[derive(Debug, Clone, Deserialize)]
pub struct Terms {
    /// The tenant's policy. `None` if it has none.
    pub policy: Option<PolicyVersion>,
    pub decisions: Vec<GateDecision>,
    /// Deployments of models that failed a short while ago.
    #[serde(default)]
    pub cooldowns: Vec<DeploymentCooldown>,
    /// Whether a budget applies to the step's model calls.
    #[serde(default)]
    pub is_budgeted: bool,
    /// What the attempt has to repair.
    #[serde(default)]
    pub repair: Option<RepairTask>,
}

/// A version of a policy as it is stored.
#[derive(Debug, Clone, Deserialize)]
pub struct PolicyVersion {
    pub version: u32,
    pub document: Value,
}

/// A value that a step's inputs refer to.
#[derive(Debug, Clone, Deserialize)]
pub struct Ref {
    pub step: String,
    pub path: Vec<String>,
    pub value: Box<RawValue>,
}

/// Result of a claim.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Claims {
    pub claimed: Vec<Claimed>,
    pub skipped: Vec<Skipped>,
}

/// A step that was not claimed, because the delivery was stale, early or repeated.
#[derive(Debug, Clone, Deserialize)]
pub struct Skipped {
    pub step_id: StepId,
    pub status: ReportedStatus,
}

/// The status of a step that a call named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportedStatus {
    /// The tenant has no such step.
    Unknown,
    #[serde(untagged)]
    Known(StepStatus),
}

impl fmt::Display for ReportedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.pad("unknown"),
            Self::Known(status) => status.fmt(f),
        }
    }
}

/// The end of one attempt.
#[derive(Debug, Clone, Serialize)]
pub struct FinishItem {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub step_id: StepId,
    pub attempt: u32,
    /// Call id of an earlier finish of this attempt whose answer was lost. That call may have claimed further steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<Uuid>,
    pub to: FinishTo,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    pub delay_ms: u64,
    pub artifacts: Vec<NewArtifact>,
    pub gates: Vec<NewGate>,
    pub events: Vec<NewEvent>,
    /// What made the artifacts.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<MadeBy>,
}

/// What made the artifacts of an attempt. Their rows keep it.
#[derive(Debug, Clone, Serialize)]
pub struct MadeBy {
    /// The function, `@` and its version.
    pub builder: String,
    /// sha256 of the canonical JSON of the step's inputs, with references resolved.
    pub inputs_sha256: String,
}

/// Identifies an attempt.
#[derive(Debug, Clone, Serialize)]
pub struct AttemptKey {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub step_id: StepId,
    pub attempt: u32,
}

impl AttemptKey {
    pub fn of(claimed: &Claimed) -> Self {
        let Claimed { tenant_id, run_id, step_id, attempt, .. } = claimed;
        Self { tenant_id: tenant_id.clone(), run_id: *run_id, step_id: *step_id, attempt: *attempt }
    }
}

/// The status of a step after its attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishTo {
    Succeeded,
    Failed,
    /// Retried after the delay.
    Ready,
    Blocked,
}

/// Lets an invocation continue: a finish also claims steps of the same handler that it makes ready, at most as many as
/// succeeded, in the same round trip.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Continuation {
    /// Id of this call. A retry with the same id receives the steps that the first call claimed.
    pub call: Uuid,
    pub handler: &'static str,
    /// Rest of the invocation in seconds.
    pub lease_s: u32,
    /// Longest timeout of a step that still fits, in seconds. With 0 nothing is claimed.
    pub timeout_s: u32,
    /// Maximum size of the values of a step's references, in bytes.
    pub refs_bytes: usize,
    /// Whether the handler needs `Claimed::terms`.
    pub terms: bool,
}

/// Result of finishing a batch.
#[derive(Debug, Clone, Deserialize)]
pub struct Finishes {
    pub items: Vec<Finished>,
    /// Steps that the caller continues with.
    pub claimed: Vec<Claimed>,
    /// Wake-ups to send for steps that became ready.
    pub ready: Vec<WakeUp>,
}

/// Result of one finish.
#[derive(Debug, Clone, Deserialize)]
pub struct Finished {
    pub step_id: StepId,
    pub result: FinishResult,
    /// Current status of the step.
    pub status: ReportedStatus,
}

/// Whether a finish counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishResult {
    Finished,
    /// The same finish was recorded before.
    Repeated,
    /// The attempt no longer owned its step, so nothing changed.
    Stale,
}

const CLAIM: &str = "select nofx.steps_claim($1, $2)";
const FINISH: &str = "select nofx.steps_finish($1, $2)";
/// The handler may have changed the role and the timeouts of the transaction.
const BEFORE_FINISH: &str = "reset role; set local statement_timeout = '10s'; set local lock_timeout = '10s'";

/// Claims steps of a batch in one round trip.
pub async fn steps_claim(db: &Database, items: &[ClaimItem]) -> Result<Claims, Error> {
    // If the connection dies before the answer, the statement is sent again with the same call id.
    let call = Uuid::new_v4();
    db.call(CLAIM, &[(&Json(items), Type::JSONB), (&call, Type::UUID)]).await
}

/// Records the ends of attempts in one round trip. With `next` it also claims steps that the invocation continues with.
pub async fn steps_finish(db: &Database, items: &[FinishItem], next: Option<&Continuation>) -> Result<Finishes, Error> {
    db.call(FINISH, &[(&Json(items), Type::JSONB), (&next.map(Json), Type::JSONB)]).await
}

/// The same inside the caller's transaction, so that its writes and the finish commit together. Takes two round trips.
pub async fn steps_finish_in(
    transaction: &Transaction<'_>,
    items: &[FinishItem],
    next: Option<&Continuation>,
) -> Result<Finishes, Error> {
    transaction.batch_execute(BEFORE_FINISH).await.map_err(database_error)?;
    let params: [Param<'_>; 2] = [(&Json(items), Type::JSONB), (&next.map(Json), Type::JSONB)];
    answer(&transaction.query_typed(FINISH, &params).await.map_err(database_error)?)
}

/// Whether the attempt still owns its step.
pub async fn attempt_is_live(db: &Database, attempt: &AttemptKey) -> Result<bool, Error> {
    db.transition("select nofx.attempt_is_live($1)", attempt).await
}

/// The event that records the tokens of a model call.
pub const USAGE_EVENT: &str = "codegen.usage";

/// Records the usage events of an attempt whose finish was fenced out, and nothing else of it. Returns how many it
/// recorded. A second call records none.
pub async fn attempt_usage_record(db: &Database, item: &FinishItem) -> Result<u32, Error> {
    let FinishItem { tenant_id, run_id, step_id, attempt, events, .. } = item;
    let events = events.iter().filter(|event| event.kind == USAGE_EVENT).collect();
    let call = UsageCall { tenant_id, run_id: *run_id, step_id: *step_id, attempt: *attempt, events };
    db.transition("select nofx.attempt_usage_record($1)", &call).await
}

#[derive(Debug, Serialize)]
struct UsageCall<'a> {
    tenant_id: &'a TenantId,
    run_id: RunId,
    step_id: StepId,
    attempt: u32,
    events: Vec<&'a NewEvent>,
}

/// An artifact that inputs name, and where its bytes are.
#[derive(Debug, Clone, Deserialize)]
pub struct FoundArtifact {
    #[serde(flatten)]
    pub artifact: ArtifactRef,
    pub storage: StorageState,
}

/// Artifacts of a tenant by id. Ids of other tenants are absent.
pub async fn artifacts_by_id(
    db: &Database,
    tenant: &TenantId,
    ids: &[ArtifactId],
) -> Result<HashMap<ArtifactId, FoundArtifact>, Error> {
    let found: Vec<FoundArtifact> =
        db.transition("select nofx.artifacts_find($1)", &FindCall { tenant_id: tenant, ids }).await?;
    Ok(found.into_iter().map(|found| (found.artifact.id, found)).collect())
}

#[derive(Debug, Serialize)]
struct FindCall<'a> {
    tenant_id: &'a TenantId,
    ids: &'a [ArtifactId],
}

/// The step `workspace:git` that stored an artifact; `None` if no such step of the tenant did. `workspace` is what a gate
/// compares with it.
pub async fn artifact_origin(
    db: &Database,
    tenant: &TenantId,
    artifact: &ArtifactRef,
    workspace: ArtifactId,
) -> Result<Option<BaseOrigin>, Error> {
    let call =
        OriginCall { tenant_id: tenant, artifact_id: artifact.id, hash: &artifact.hash, workspace_id: workspace };
    let found: Origin = db.transition("select nofx.artifact_origin($1)", &call).await?;
    Ok(found.origin)
}

#[derive(Debug, Deserialize)]
struct Origin {
    origin: Option<BaseOrigin>,
}

#[derive(Debug, Serialize)]
struct OriginCall<'a> {
    tenant_id: &'a TenantId,
    artifact_id: ArtifactId,
    hash: &'a str,
    workspace_id: ArtifactId,
}
