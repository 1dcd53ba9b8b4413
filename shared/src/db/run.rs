//! Runs: create, control, read.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::Type;

use super::pool::Database;
use crate::domain::WakeUp;
use crate::domain::{RunId, RunStatus, StepId, TenantId};
use crate::error::{Error, Problem};

/// A run to be created, ids given.
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
    /// Names of the steps that the inputs refer to.
    pub refs: BTreeSet<&'a str>,
    /// What they refer to in the outputs of those steps.
    pub ref_paths: Vec<RefPath<'a>>,
    pub blockers: usize,
    pub max_attempts: u32,
    pub backoff_ms: u32,
    pub timeout_s: Option<u32>,
}

/// A place in a step's outputs.
#[derive(Debug, Serialize)]
pub struct RefPath<'a> {
    pub step: &'a str,
    pub path: &'a [String],
}

/// `child` waits for `parent`.
#[derive(Debug, Serialize)]
pub struct NewEdge {
    pub parent: StepId,
    pub child: StepId,
}

/// What creating gave.
#[derive(Debug, Deserialize)]
pub struct Created {
    pub result: CreateResult,
    pub id: Option<RunId>,
    pub status: Option<RunStatus>,
    #[serde(default)]
    pub ready: Vec<WakeUp>,
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// Whether a run was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreateResult {
    Created,
    /// The same idempotency key and the same request came before.
    Existing,
    /// The same idempotency key came before with another request.
    Conflict,
    Invalid,
}

/// What a person asks of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Cancel,
    Pause,
    Resume,
    Retry,
}

/// What controlling a run gave.
#[derive(Debug, Deserialize)]
pub struct Controlled {
    /// cancelled, paused, resumed, retried, unchanged, conflict or not_found.
    pub result: String,
    pub status: Option<RunStatus>,
    pub generation: Option<u32>,
    #[serde(default)]
    pub ready: Vec<WakeUp>,
    /// Names of the steps that had not started and never will.
    #[serde(default)]
    pub stopped: Vec<String>,
    /// Names of the steps that were at work, and whose results will not count.
    #[serde(default)]
    pub was_running: Vec<String>,
    /// Names of the steps that go on and will be recorded.
    #[serde(default)]
    pub still_running: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ControlCall<'a> {
    tenant_id: &'a TenantId,
    run_id: RunId,
    actor: &'a str,
}

/// Creates a run with its steps, edges and first events.
pub async fn run_create(db: &Database, run: &NewRun<'_>) -> Result<Created, Error> {
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

/// Runs of a tenant, newest first: `limit` of them after the cursor (a run's created_at and id).
pub async fn run_list(
    db: &Database,
    tenant: &TenantId,
    after: Option<&(String, RunId)>,
    limit: i64,
) -> Result<Vec<Value>, Error> {
    let columns = "jsonb_build_object('id', r.id, 'status', r.status, 'goal', r.goal, 'generation', r.generation,
                   'created_at', r.created_at, 'started_at', r.started_at, 'finished_at', r.finished_at,
                   'failure', r.failure)";
    let order = "order by r.created_at desc, r.id desc limit $2";
    let rows = if let Some((created_at, id)) = after {
        let sql = format!(
            "select {columns} from nofx.run r
              where r.tenant_id = $1 and (r.created_at, r.id) < ($3::text::timestamptz, $4) {order}"
        );
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] =
            [(&tenant.0, Type::TEXT), (&limit, Type::INT8), (created_at, Type::TEXT), (&id.0, Type::UUID)];
        db.query(&sql, &params).await?
    } else {
        let sql = format!("select {columns} from nofx.run r where r.tenant_id = $1 {order}");
        db.query(&sql, &[(&tenant.0, Type::TEXT), (&limit, Type::INT8)]).await?
    };
    rows.iter().map(super::pool::column).collect()
}

/// A run with its steps and artifacts: `{run, steps, artifacts}`.
pub async fn run_fetch(db: &Database, tenant: &TenantId, run: RunId) -> Result<Option<Value>, Error> {
    let sql = "select jsonb_build_object(
                   'run', jsonb_build_object(
                       'id', r.id, 'status', r.status, 'goal', r.goal, 'plan', r.plan, 'plan_digest', r.plan_digest,
                       'generation', r.generation, 'failure', r.failure, 'timeout_s', r.timeout_s,
                       'deadline_at', r.deadline_at, 'created_at', r.created_at, 'started_at', r.started_at,
                       'paused_at', r.paused_at, 'finished_at', r.finished_at),
                   'steps', coalesce((
                       select jsonb_agg(jsonb_build_object(
                                  'id', s.id, 'name', s.name, 'tool', s.tool, 'status', s.status, 'inputs', s.inputs,
                                  'outputs', s.outputs, 'error', s.error, 'attempt', s.attempt, 'blockers', s.blockers,
                                  'ready_at', s.ready_at, 'started_at', s.started_at, 'finished_at', s.finished_at,
                                  'depends_on', coalesce((
                                      select jsonb_agg(p.name order by p.ordinal)
                                        from nofx.step_edge e
                                        join nofx.step p on p.id = e.parent_id
                                       where e.child_id = s.id), '[]')) order by s.ordinal)
                         from nofx.step s where s.run_id = r.id), '[]'),
                   'artifacts', coalesce((
                       select jsonb_agg(jsonb_build_object(
                                  'id', a.id, 'step_id', a.step_id, 'attempt', a.attempt, 'name', a.name,
                                  'type', a.type, 'uri', a.uri, 'hash', a.hash, 'size_bytes', a.size_bytes,
                                  'media_type', a.media_type, 'metadata', a.metadata, 'created_at', a.created_at)
                                  order by a.created_at, a.id)
                         from nofx.artifact a where a.run_id = r.id), '[]'))
                 from nofx.run r
                where r.tenant_id = $1 and r.id = $2";
    db.query_value(sql, &[(&tenant.0, Type::TEXT), (&run.0, Type::UUID)]).await
}

/// Whether the tenant has such a run.
pub async fn run_exists(db: &Database, tenant: &TenantId, run: RunId) -> Result<bool, Error> {
    let sql = "select exists (select from nofx.run r where r.tenant_id = $1 and r.id = $2)";
    Ok(db.query_value(sql, &[(&tenant.0, Type::TEXT), (&run.0, Type::UUID)]).await?.unwrap_or(false))
}
