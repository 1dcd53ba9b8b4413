//! Steps: claim, finish, and why one waits.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_postgres::Transaction;
use tokio_postgres::types::{Json, Type};
use uuid::Uuid;

use super::pool::{Database, Param, answer, database_error};
use crate::domain::{
    ArtifactId, ArtifactRef, NewArtifact, NewEvent, NewGate, RunId, StepError, StepId, StepStatus, TenantId, WakeUp,
};
use crate::error::Error;

/// A step that somebody wants to own.
#[derive(Debug, Clone, Serialize)]
pub struct ClaimItem {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub step_id: StepId,
    /// What is left of the invocation.
    pub lease_s: u32,
    /// The most bytes that the values of its references may have.
    pub refs_bytes: usize,
}

/// A step that this attempt owns. What plans and outcomes put into it stays text here, so that what cannot be read of one
/// step is the matter of that step alone.
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
    /// The values that the inputs refer to, without those that are not there; `None` when they have more than `ClaimItem::refs_bytes` bytes.
    pub refs: Option<Vec<Ref>>,
    pub goal: String,
    /// A `domain::Workspace`.
    pub workspace: Option<Box<RawValue>>,
    pub traceparent: Option<String>,
}

/// A value that a step's inputs refer to.
#[derive(Debug, Clone, Deserialize)]
pub struct Ref {
    pub step: String,
    pub path: Vec<String>,
    pub value: Box<RawValue>,
}

/// What a claim gave.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Claims {
    pub claimed: Vec<Claimed>,
    pub skipped: Vec<Skipped>,
}

/// A step that could not be claimed: a stale, early or repeated delivery.
#[derive(Debug, Clone, Deserialize)]
pub struct Skipped {
    pub step_id: StepId,
    pub status: Known,
}

/// The state of a step that a call has named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// The tenant has no such step.
    Unknown,
    #[serde(untagged)]
    Is(StepStatus),
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.pad("unknown"),
            Self::Is(status) => status.fmt(f),
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
    /// An earlier finish of this attempt whose answer was lost: it may have claimed what to go on with.
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
}

/// Names one attempt.
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

/// The state that an attempt leaves its step in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishTo {
    Succeeded,
    Failed,
    /// Again, after the delay.
    Ready,
    Blocked,
}

/// An invocation that can go on: of the steps of its handler that a finish makes ready it claims as many as succeeded, in
/// the same round trip.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Continuation {
    /// Names this finish: sent again, because its answer was lost, it gets the steps that it has claimed.
    pub call: Uuid,
    pub handler: &'static str,
    /// What is left of the invocation.
    pub lease_s: u32,
    /// The longest timeout that a step may have to fit in. 0: nothing more is claimed.
    pub timeout_s: u32,
    /// The most bytes that the values of a step's references may have.
    pub refs_bytes: usize,
}

/// What finishing did.
#[derive(Debug, Clone, Deserialize)]
pub struct Finishes {
    pub items: Vec<Finished>,
    /// Steps that the caller goes on with.
    pub claimed: Vec<Claimed>,
    /// Steps that became ready and are owed a wake-up.
    pub ready: Vec<WakeUp>,
}

/// What became of one finish.
#[derive(Debug, Clone, Deserialize)]
pub struct Finished {
    pub step_id: StepId,
    pub result: FinishResult,
    /// State of the step now.
    pub status: Known,
}

/// Whether a finish counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishResult {
    Finished,
    /// The same finish had been recorded before.
    Repeated,
    /// The attempt no longer owned its step: nothing changed.
    Stale,
}

const CLAIM: &str = "select nofx.steps_claim($1, $2)";
const FINISH: &str = "select nofx.steps_finish($1, $2)";
/// Who worked in the transaction may have become another role, and set timeouts of its own.
const BEFORE_FINISH: &str = "reset role; set local statement_timeout = '10s'; set local lock_timeout = '10s'";

/// Claims steps of a batch in one round trip.
pub async fn steps_claim(db: &Database, items: &[ClaimItem]) -> Result<Claims, Error> {
    // Where the connection dies before the answer, the statement is sent again: the name tells that it is the same call.
    let call = Uuid::new_v4();
    db.call(CLAIM, &[(&Json(items), Type::JSONB), (&call, Type::UUID)]).await
}

/// Records the ends of attempts in one round trip; with `next` it also claims what the invocation goes on with.
pub async fn steps_finish(db: &Database, items: &[FinishItem], next: Option<&Continuation>) -> Result<Finishes, Error> {
    db.call(FINISH, &[(&Json(items), Type::JSONB), (&next.map(Json), Type::JSONB)]).await
}

/// The same inside a transaction of the caller's, so that its own writes and the finish are one: two round trips.
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

/// The event that tells what was spent.
pub const USAGE_EVENT: &str = "codegen.usage";

/// Records what an attempt spent whose finish was fenced out: its usage events, and nothing else of it. Returns how many were
/// recorded; a second call records none.
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

/// Artifacts of a tenant by id; ids that are not the tenant's are absent.
pub async fn artifacts_by_id(
    db: &Database,
    tenant: &TenantId,
    ids: &[ArtifactId],
) -> Result<HashMap<ArtifactId, ArtifactRef>, Error> {
    let found: Vec<ArtifactRef> =
        db.transition("select nofx.artifacts_find($1)", &FindCall { tenant_id: tenant, ids }).await?;
    Ok(found.into_iter().map(|artifact| (artifact.id, artifact)).collect())
}

#[derive(Debug, Serialize)]
struct FindCall<'a> {
    tenant_id: &'a TenantId,
    ids: &'a [ArtifactId],
}
