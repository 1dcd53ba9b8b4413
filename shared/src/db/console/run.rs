//! The page of a run.

use serde::Deserialize;
use tokio_postgres::types::Type;

use super::gate::{GATE, GATE_JOINS, Gate};
use super::steps::{self, Attempt, Step};
use super::timeline::{Selection, Timeline};
use super::{Artifact, WAITING};
use crate::db::row;
use crate::db::session::{Arg, Session};
use crate::domain::{GateId, MicroUsd, RunId, RunStatus, Timestamp};
use crate::error::Error;

const FAILURE: &str = cut!("r.failure ->> 'message'", 2000);
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
    /// Who started it.
    pub created_by: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub deadline_at: Option<Timestamp>,
    /// From start to end, once it has ended.
    pub duration_ms: Option<i64>,
    pub budget_usd_micros: Option<MicroUsd>,
    pub spent_usd_micros: MicroUsd,
    /// What model calls in flight can still cost.
    pub reserved_usd_micros: MicroUsd,
    /// Who paused or cancelled it, and when. None in other states.
    pub stopped: Option<Stopped>,
    /// Since when the step that waits longest for a worker is ready.
    pub ready_since: Option<Timestamp>,
    /// The steps, in the plan's order. These are all of them, unless the plan has thousands.
    pub steps: Vec<Step>,
    pub steps_total: usize,
    /// Ordinals of parents and children.
    pub edges: Vec<(i64, i64)>,
    /// The newest attempts of each step, in the order of steps and attempts.
    pub attempts: Vec<Attempt>,
    /// Milliseconds from the run's creation to its end, or until now.
    pub now_ms: i64,
    pub gates: Vec<Gate>,
    pub gates_total: usize,
    /// Those that people can decide.
    pub gates_open: u64,
    pub artifacts: Vec<Artifact>,
    pub artifacts_total: usize,
    pub timeline: Timeline,
    /// Pending gates of the tenant, counted up to 100.
    pub waiting: u64,
    /// What the reader selected.
    #[serde(skip)]
    pub focus: Focus,
}

/// The part of a large run that a page shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Focus {
    /// A gate to list first.
    pub gate: Option<GateId>,
}

/// A request that stopped a run.
#[derive(Debug, Clone, Deserialize)]
pub struct Stopped {
    pub actor: Option<String>,
    pub at: Timestamp,
}

impl Run {
    /// Whether the run can still change without a request.
    pub fn is_open(&self) -> bool {
        !self.status.is_terminal()
    }
}

/// A run with its steps, gates, artifacts and the selected events.
pub async fn run_fetch(
    session: &Session,
    run: RunId,
    focus: Focus,
    selection: &Selection,
) -> Result<Option<Run>, Error> {
    let sql = format!(
        "select r.id, r.status, r.goal, r.generation, r.plan_digest, {FAILURE} as failure,
                r.created_by, r.created_at, r.started_at, r.finished_at, r.deadline_at,
                r.budget_usd_micros, r.spent_usd_micros, r.reserved_usd_micros,
                floor(extract(epoch from r.finished_at - r.started_at) * 1000)::bigint as duration_ms,
                {},
                coalesce((select json_agg(gate) from (
                    select {GATE}
                      from (select g.* from nofx.gate g
                             where g.tenant_id = $1 and g.run_id = r.id order by {GATE_ORDER} limit {GATES}) g
                      {GATE_JOINS} order by {GATE_ORDER}) gate), '[]') as gates,
                (select count(*) from nofx.gate g where g.tenant_id = $1 and g.run_id = r.id) as gates_total,
                (select count(*) from nofx.gate g
                  where g.tenant_id = $1 and g.run_id = r.id and g.status = 'pending'
                    and (g.expires_at is null or g.expires_at >= now())) as gates_open,
                coalesce((select json_agg(artifact) from ({ARTIFACTS_OF_RUN}) artifact), '[]') as artifacts,
                (select count(*) from nofx.artifact a where a.tenant_id = $1 and a.run_id = r.id) as artifacts_total,
                {STOPPED} as stopped,
                (select min(s.ready_at) from nofx.step s
                  where s.tenant_id = $1 and s.run_id = r.id and s.status = 'ready' and s.ready_at <= now()) as ready_since,
                ({}) as timeline,
                {WAITING} as waiting
           from nofx.run r
          where r.tenant_id = $1 and r.id = $2",
        steps::columns(),
        selection.sql()
    );
    let (gate, bound, types) = (focus.gate.map(|id| id.0), selection.bound(), selection.types());
    let params: [Arg<'_>; 5] = [
        (&run.0, Type::UUID),
        (&bound, Type::INT8),
        (&gate, Type::UUID),
        (&types, Type::TEXT_ARRAY),
        (&selection.step, Type::INT8),
    ];
    let found: Option<Run> = row::fetch(session, &sql, &params).await?;
    Ok(found.map(|run| Run { focus, timeline: run.timeline.arranged(selection), ..run }))
}

// Parts of the query for a run `r`, in the order of the page.

/// The gate that the reader named, then the pending ones, oldest first, then the others, newest first.
const GATE_ORDER: &str = "g.id is not distinct from $4::uuid desc, (g.status = 'pending') desc,
        case when g.status = 'pending' then g.created_at end, g.created_at desc, g.id desc";

const ARTIFACTS_OF_RUN: &str =
    "select a.id, s.name as step, left(a.name, 200) as name, left(a.type, 200) as type, a.hash, a.size_bytes, a.media_type,
            k.state as storage
       from nofx.artifact a
       left join nofx.step s on s.id = a.step_id
       left join nofx.artifact_storage k on k.artifact_id = a.id and k.tenant_id = $1
      where a.tenant_id = $1 and a.run_id = r.id
      order by a.created_at desc, a.id desc limit 200";

/// The request that stopped the run. It is among the last events: little happens after it.
const STOPPED: &str = "case when r.status in ('paused', 'cancelled') then (
            select json_build_object('actor', left(e.payload ->> 'actor', 200), 'at', e.timestamp)
              from nofx.event e
             where e.tenant_id = $1 and e.run_id = r.id
               and e.type = case r.status when 'paused' then 'run.pause_requested' else 'run.cancel_requested' end
             order by e.seq desc limit 1) end";
