//! The page of a run.

use serde::Deserialize;
use tokio_postgres::types::Type;

use super::gate::{GATE, GATE_JOINS, Gate};
use super::{Artifact, WAITING};
use crate::db::pool::{Database, Param};
use crate::db::row;
use crate::domain::{GateId, RunId, RunStatus, StepStatus, TenantId, Timestamp};
use crate::error::Error;

/// Steps on a page of a run.
pub const STEPS: i64 = 100;
/// Parents that a step lists.
const PARENTS: usize = 8;
/// Gates on the page of a run, pending ones first.
const GATES: usize = 50;

/// One run.
#[derive(Debug, Clone, Deserialize)]
pub struct Run {
    pub id: RunId,
    pub status: RunStatus,
    pub goal: String,
    pub generation: i64,
    pub plan_digest: String,
    /// Why the run failed, if no step failed.
    pub failure: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub deadline_at: Option<Timestamp>,
    /// From start to end, once it has ended.
    pub duration_ms: Option<i64>,
    /// One page of steps, in the plan's order.
    pub steps: Vec<Step>,
    pub steps_total: usize,
    pub gates: Vec<Gate>,
    pub gates_total: usize,
    pub artifacts: Vec<Artifact>,
    pub artifacts_total: usize,
    /// Newest first.
    pub events: Vec<Event>,
    /// Pending gates of the tenant, counted up to 100.
    pub waiting: u64,
    /// What the reader selected.
    #[serde(skip)]
    pub focus: Focus,
}

/// The part of a large run that a page shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Focus {
    /// Ordinal of the first step.
    pub steps_from: i64,
    /// A gate to list first.
    pub gate: Option<GateId>,
}

/// A step of a run.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    pub ordinal: i64,
    pub name: String,
    pub tool: String,
    pub status: StepStatus,
    pub attempt: i64,
    pub max_attempts: i64,
    pub failures: i64,
    pub workers_lost: i64,
    pub error: Option<String>,
    /// Time of the next attempt, if it is in the future.
    pub ready_at: Option<Timestamp>,
    pub duration_ms: Option<i64>,
    /// The first parents.
    pub depends_on: Vec<Parent>,
    pub parents_total: usize,
}

/// A step that another step waits for.
#[derive(Debug, Clone, Deserialize)]
pub struct Parent {
    pub ordinal: i64,
    pub name: String,
}

/// An event of the timeline.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    pub seq: i64,
    pub step: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    pub timestamp: Timestamp,
    /// Type of the gate or name of the artifact that it is about.
    pub subject: Option<String>,
    pub attempt: Option<String>,
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub error: Option<String>,
}

impl Run {
    /// Whether the run can still change without a request.
    pub fn is_open(&self) -> bool {
        !self.status.is_terminal()
    }
}

/// A run with a page of its steps, its gates, artifacts and newest events. With `before`, only events before that
/// number.
pub async fn run_fetch(
    db: &Database,
    tenant: &TenantId,
    run: RunId,
    focus: Focus,
    before: Option<i64>,
) -> Result<Option<Run>, Error> {
    let sql = format!(
        "select r.id, r.status, r.goal, r.generation, r.plan_digest, left(r.failure ->> 'message', 2000) as failure,
                r.created_at, r.started_at, r.finished_at, r.deadline_at,
                (extract(epoch from r.finished_at - r.started_at) * 1000)::bigint as duration_ms,
                coalesce((select json_agg(step) from ({}) step), '[]') as steps,
                (select count(*) from nofx.step s where s.tenant_id = $1 and s.run_id = r.id) as steps_total,
                coalesce((select json_agg(gate) from (
                    select {GATE} from nofx.gate g {GATE_JOINS}
                     where g.tenant_id = $1 and g.run_id = r.id
                     order by g.id is not distinct from $5::uuid desc, (g.status = 'pending') desc,
                              case when g.status = 'pending' then g.created_at end, g.created_at desc, g.id desc
                     limit {GATES}) gate), '[]') as gates,
                (select count(*) from nofx.gate g where g.tenant_id = $1 and g.run_id = r.id) as gates_total,
                coalesce((select json_agg(artifact) from ({ARTIFACTS_OF_RUN}) artifact), '[]') as artifacts,
                (select count(*) from nofx.artifact a where a.tenant_id = $1 and a.run_id = r.id) as artifacts_total,
                coalesce((select json_agg(event) from ({EVENTS_OF_RUN}) event), '[]') as events,
                {WAITING} as waiting
           from nofx.run r
          where r.tenant_id = $1 and r.id = $2",
        steps_of_run()
    );
    let gate = focus.gate.map(|id| id.0);
    let params: [Param<'_>; 5] = [
        (&tenant.0, Type::TEXT),
        (&run.0, Type::UUID),
        (&before, Type::INT8),
        (&focus.steps_from, Type::INT8),
        (&gate, Type::UUID),
    ];
    let found: Option<Run> = row::fetch(db, &sql, &params).await?;
    Ok(found.map(|run| Run { focus, ..run }))
}

// Parts of the query for a run `r`, in the order of the page.

fn steps_of_run() -> String {
    format!(
        "select s.ordinal, s.name, s.tool, s.status, s.attempt, s.max_attempts, s.failures, s.workers_lost,
                left(s.error ->> 'message', 1000) as error,
                case when s.status = 'ready' and s.ready_at > now() then s.ready_at end as ready_at,
                (extract(epoch from s.finished_at - s.started_at) * 1000)::bigint as duration_ms,
                (select count(*) from nofx.step_edge e where e.child_id = s.id) as parents_total,
                coalesce((select json_agg(parent) from (
                    select p.ordinal, p.name
                      from nofx.step_edge e
                      join nofx.step p on p.id = e.parent_id
                     where e.child_id = s.id order by p.ordinal limit {PARENTS}) parent), '[]') as depends_on
           from nofx.step s
          where s.tenant_id = $1 and s.run_id = r.id and s.ordinal >= $4 and s.ordinal - $4 < {STEPS}
          order by s.ordinal"
    )
}

const ARTIFACTS_OF_RUN: &str =
    "select a.id, s.name as step, left(a.name, 200) as name, left(a.type, 200) as type, a.hash, a.size_bytes, a.media_type
       from nofx.artifact a
       left join nofx.step s on s.id = a.step_id
      where a.tenant_id = $1 and a.run_id = r.id
      order by a.created_at desc, a.id desc limit 200";

const EVENTS_OF_RUN: &str = "select e.seq, s.name as step, e.type, e.timestamp,
            coalesce(e.payload ->> 'gate_type', e.payload ->> 'name') as subject,
            e.payload ->> 'attempt' as attempt, e.payload ->> 'actor' as actor,
            left(e.payload ->> 'reason', 500) as reason,
            left(coalesce(e.payload -> 'error' ->> 'message', e.payload -> 'failure' ->> 'message'), 500) as error
       from nofx.event e
       left join nofx.step s on s.id = e.step_id
      where e.tenant_id = $1 and e.run_id = r.id and ($3::bigint is null or e.seq < $3)
      order by e.seq desc limit 200";
