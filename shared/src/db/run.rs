//! Runs: create, control, read.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_postgres::types::Type;

use super::page::{Page, page};
use super::pool::{Database, Param};
use super::row;
use crate::domain::{RunId, RunStatus, StepId, TenantId, WakeUp};
use crate::error::{Error, Problem};
use crate::view::{Run, RunSummary};

/// A run to create. The caller chooses the ids.
#[derive(Debug, Serialize)]
pub struct NewRun<'a> {
    pub id: RunId,
    pub tenant_id: &'a TenantId,
    pub goal: &'a str,
    pub plan: &'a Value,
    pub plan_digest: String,
    pub request_digest: String,
    pub idempotency_key: Option<&'a str>,
    pub timeout_s: Option<u32>,
    pub traceparent: String,
    /// Artifact ids by role: archive, base, diff.
    pub workspace: Option<Value>,
    pub steps: Vec<NewStep<'a>>,
    pub edges: Vec<NewEdge>,
}

/// A step of a new run.
#[derive(Debug, Serialize)]
pub struct NewStep<'a> {
    pub id: StepId,
    pub ordinal: usize,
    pub name: &'a str,
    pub tool: &'a str,
    pub handler: &'a str,
    pub inputs: &'a Value,
    /// Names of the steps that the inputs refer to, one for each reference.
    pub refs: Vec<&'a str>,
    /// The path of each reference, as text of a Postgres array.
    pub ref_paths: Vec<String>,
    pub blockers: usize,
    pub max_attempts: u32,
    pub backoff_ms: u32,
    pub timeout_s: Option<u32>,
}

/// `child` waits for `parent`.
#[derive(Debug, Serialize)]
pub struct NewEdge {
    pub parent: StepId,
    pub child: StepId,
}

/// Result of creating a run.
#[derive(Debug, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum RunCreated {
    Created {
        id: RunId,
        status: RunStatus,
        ready: Vec<WakeUp>,
    },
    /// The idempotency key was used before, with the same request.
    Existing {
        id: RunId,
        status: RunStatus,
    },
    /// The idempotency key was used before, with another request.
    Conflict {
        id: RunId,
    },
    Invalid {
        problems: Vec<Problem>,
    },
}

/// An operation on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Cancel,
    Pause,
    Resume,
    Retry,
}

/// Result of an operation on a run.
#[derive(Debug, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Controlled {
    Cancelled(Changes),
    Paused(Changes),
    Resumed(Changes),
    Retried(Changes),
    /// The run was already in this state.
    Unchanged(Changes),
    /// The run's state forbids the operation.
    Conflict {
        status: RunStatus,
    },
    NotFound,
}

/// What an operation changed. `view::RunChange` describes the lists.
#[derive(Debug, Deserialize)]
pub struct Changes {
    pub status: RunStatus,
    pub generation: Option<u32>,
    #[serde(default)]
    pub ready: Vec<WakeUp>,
    pub stopped: Option<Vec<String>>,
    pub was_running: Option<Vec<String>>,
    pub still_running: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct ControlCall<'a> {
    tenant_id: &'a TenantId,
    run_id: RunId,
    actor: &'a str,
}

/// Creates a run with its steps, edges and first events.
pub async fn run_create(db: &Database, run: &NewRun<'_>) -> Result<RunCreated, Error> {
    db.transition("select nofx.run_create($1)", run).await
}

/// Cancels, pauses, resumes or retries.
pub async fn run_control(
    db: &Database,
    tenant: &TenantId,
    run: RunId,
    control: Control,
    actor: &str,
) -> Result<Controlled, Error> {
    let sql = match control {
        Control::Cancel => "select nofx.run_cancel($1)",
        Control::Pause => "select nofx.run_pause($1)",
        Control::Resume => "select nofx.run_resume($1)",
        Control::Retry => "select nofx.run_retry($1)",
    };
    db.transition(sql, &ControlCall { tenant_id: tenant, run_id: run, actor }).await
}

/// Runs of a tenant, newest first, after the one with the id `after`.
pub async fn run_list(
    db: &Database,
    tenant: &TenantId,
    after: Option<RunId>,
    limit: i64,
) -> Result<Page<RunSummary>, Error> {
    // Two query texts: with an optional cursor in one text Postgres would not use the index.
    let behind = if after.is_some() {
        "(r.created_at, r.id) < (select c.created_at, c.id from nofx.run c where c.tenant_id = $1 and c.id = $3)"
    } else {
        "$3::uuid is null"
    };
    let sql = format!(
        "select r.id, r.status, r.goal, r.generation, r.created_at, r.started_at, r.finished_at, r.failure
           from nofx.run r
          where r.tenant_id = $1 and {behind} order by r.created_at desc, r.id desc limit $2 + 1"
    );
    let after = after.map(|id| id.0);
    let params: [Param<'_>; 3] = [(&tenant.0, Type::TEXT), (&limit, Type::INT8), (&after, Type::UUID)];
    page(db, &sql, limit, &params).await
}

/// Maximum size of a plan that is shown with its run.
const PLAN_INLINE_BYTES: i32 = 64 << 10;

/// A run. A large plan is null, and `plan_omitted` gives its size. The caller adds its address.
pub async fn run_fetch(db: &Database, tenant: &TenantId, run: RunId) -> Result<Option<Run>, Error> {
    let sql = format!(
        "select r.id, r.status, r.goal, r.plan_digest, r.generation, r.failure, r.timeout_s, r.deadline_at,
                r.created_at, r.started_at, r.paused_at, r.finished_at,
                case when size.plan <= {PLAN_INLINE_BYTES} then r.plan end as plan,
                case when size.plan > {PLAN_INLINE_BYTES} then json_build_object('bytes', size.plan) end as plan_omitted
           from nofx.run r
          cross join lateral (select octet_length(r.plan::text) as plan offset 0) size
          where r.tenant_id = $1 and r.id = $2"
    );
    row::fetch(db, &sql, &[(&tenant.0, Type::TEXT), (&run.0, Type::UUID)]).await
}

/// A run's plan as posted.
pub async fn run_plan(db: &Database, tenant: &TenantId, run: RunId) -> Result<Option<Box<RawValue>>, Error> {
    #[derive(Deserialize)]
    struct Row {
        plan: Box<RawValue>,
    }
    let sql = "select r.plan from nofx.run r where r.tenant_id = $1 and r.id = $2";
    let row: Option<Row> = row::fetch(db, sql, &[(&tenant.0, Type::TEXT), (&run.0, Type::UUID)]).await?;
    Ok(row.map(|row| row.plan))
}

/// Whether the tenant has such a run.
pub async fn run_exists(db: &Database, tenant: &TenantId, run: RunId) -> Result<bool, Error> {
    let sql = "select from nofx.run r where r.tenant_id = $1 and r.id = $2";
    row::exists(db, sql, &[(&tenant.0, Type::TEXT), (&run.0, Type::UUID)]).await
}
