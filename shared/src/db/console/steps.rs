//! All steps of a run with their edges and attempts, as short rows: the page of a run draws them at once.

use serde::Deserialize;

use crate::domain::{StepStatus, Timestamp};

/// Steps and edges that are read. A plan has at most 1,000 and 10,000, unless `MAX_STEPS` and `MAX_EDGES` allow more.
const STEPS: usize = 5_000;
const EDGES: usize = 20_000;
/// Attempts of a step that are read, newest first.
pub const ATTEMPTS: usize = 10;
/// Characters of an error.
const ERROR: usize = 300;

/// A step. Times are in milliseconds since the run was created. The query writes the fields in this order.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    pub ordinal: i64,
    pub name: String,
    pub tool: String,
    pub status: StepStatus,
    /// Number of the newest attempt. 0: none yet.
    pub attempt: i64,
    pub max_attempts: i64,
    /// Attempts of this generation that failed.
    pub failures: i64,
    /// Attempts of this generation whose worker was lost.
    pub workers_lost: i64,
    /// When it became ready, the last time.
    pub ready_ms: Option<i64>,
    /// Start of the first attempt of this generation.
    pub started_ms: Option<i64>,
    pub finished_ms: Option<i64>,
    /// `started_ms` as a time, if the step has not finished.
    pub open_since: Option<Timestamp>,
    /// Time of the next attempt, if it is in the future.
    pub next_try_at: Option<Timestamp>,
    /// The message of the last error, shortened.
    pub error: Option<String>,
}

/// An attempt. Times are in milliseconds since the run was created. The query writes the fields in this order.
#[derive(Debug, Clone, Deserialize)]
pub struct Attempt {
    /// Ordinal of its step.
    pub ordinal: i64,
    pub number: i64,
    pub status: AttemptStatus,
    pub started_ms: i64,
    pub finished_ms: Option<i64>,
    /// When somebody decided about the gate that it asked for.
    pub decided_ms: Option<i64>,
}

/// State of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptStatus {
    Running,
    Succeeded,
    Failed,
    /// It asked for a gate.
    Blocked,
    /// Its worker was lost.
    Lost,
    Cancelled,
}

/// The columns `steps`, `steps_total`, `edges` and `attempts` of the run `r` of the tenant `$1`, and `now_ms`: the time
/// of its end, or of the query.
pub(super) fn columns() -> String {
    let between = |from: &str, to: &str| format!("floor(extract(epoch from {to} - {from}) * 1000)::bigint");
    let ms = |time: &str| between("r.created_at", time);
    // The length is cut, as everywhere else, not the difference of two cut times.
    let end = |of: &str| {
        let (start, end) = (format!("{of}.started_at"), format!("{of}.finished_at"));
        format!("coalesce({} + {}, {})", ms(&start), between(&start, &end), ms(&end))
    };
    let (ready, started, finished) = (ms("s.ready_at"), ms("s.started_at"), end("s"));
    let (attempt_started, attempt_finished) = (ms("a.started_at"), end("a"));
    let (decided, now) = (ms("min(g.decided_at)"), ms("coalesce(r.finished_at, now())"));
    format!(
        "coalesce((
             select json_agg(json_build_array(
                        s.ordinal, s.name, s.tool, s.status, s.attempt, s.max_attempts, s.failures, s.workers_lost,
                        {ready}, {started}, {finished}, case when s.finished_at is null then s.started_at end,
                        case when s.status = 'ready' and s.ready_at > now() then s.ready_at end,
                        left(s.error ->> 'message', {ERROR})) order by s.ordinal)
               from (select s.* from nofx.step s
                      where s.tenant_id = $1 and s.run_id = r.id order by s.ordinal limit {STEPS}) s), '[]') as steps,
         (select count(*) from nofx.step s where s.tenant_id = $1 and s.run_id = r.id) as steps_total,
         coalesce((
             select json_agg(json_build_array(e.parent, e.child))
               from (select p.ordinal as parent, c.ordinal as child
                       from nofx.step p
                       join nofx.step_edge e on e.tenant_id = $1 and e.parent_id = p.id
                       join nofx.step c on c.id = e.child_id
                      where p.tenant_id = $1 and p.run_id = r.id limit {EDGES}) e), '[]') as edges,
         coalesce((
             select json_agg(json_build_array(
                        s.ordinal, a.attempt, a.status, {attempt_started}, {attempt_finished},
                        case when a.status = 'blocked' then (
                            select {decided} from nofx.gate g
                             where g.tenant_id = $1 and g.step_id = s.id and g.decided_at >= a.finished_at) end)
                    order by s.ordinal, a.attempt)
               from (select s.id, s.ordinal from nofx.step s
                      where s.tenant_id = $1 and s.run_id = r.id and s.attempt > 0
                      order by s.ordinal limit {STEPS}) s
               cross join lateral (
                   select a.attempt, a.status, a.started_at, a.finished_at from nofx.attempt a
                    where a.tenant_id = $1 and a.step_id = s.id
                    order by a.attempt desc limit {ATTEMPTS}) a), '[]') as attempts,
         {now} as now_ms"
    )
}
