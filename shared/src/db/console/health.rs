//! The health of the engine: what is ready, what runs, what was lost.

use serde::Deserialize;
use serde_json::Value;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::WAITING;
use crate::db::row;
use crate::db::session::{Arg, Session};
use crate::domain::tool::{HANDLERS, LONG_GATES};
use crate::domain::{RunId, Timestamp};
use crate::error::Error;

/// Steps, attempts and events that are counted. More are shown as "10,000+".
const COUNTED: usize = 10_000;
/// Lost workers, codes and redrives that are listed.
const LISTED: usize = 8;

/// The health of the engine, as the database knows it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Health {
    pub handlers: Vec<HandlerSteps>,
    /// Workers that were lost in the last hour, newest first.
    pub lost: Vec<LostWorker>,
    pub lost_total: u64,
    /// Why steps failed in the last hour, most frequent first.
    pub failures: Vec<FailureCode>,
    /// Steps that nobody claimed and that failed in the last day.
    pub undeliverable: u64,
    /// What people moved out of dead-letter queues, newest first.
    pub redrives: Vec<Redriven>,
    /// The last sweep. `None` if none was recorded.
    pub sweep: Option<Sweep>,
    /// Pending gates of the tenant, counted up to 100.
    pub waiting: u64,
}

/// Steps of a handler that a worker should have, or has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct HandlerSteps {
    pub handler: String,
    /// Steps that a worker could claim now.
    pub ready: u64,
    /// Ready steps whose next try is not due yet.
    pub retrying: u64,
    pub oldest: Option<Timestamp>,
    /// How long the oldest ready step has waited.
    pub waits_ms: Option<i64>,
    pub running: u64,
    /// Running steps whose lease ended more than 3 minutes ago. The sweeper should have recovered them.
    pub overdue: u64,
}

/// An attempt whose worker was lost.
#[derive(Debug, Clone, Deserialize)]
pub struct LostWorker {
    pub run_id: RunId,
    pub step: String,
    pub handler: String,
    pub at: Timestamp,
}

/// How often steps failed with an error code.
#[derive(Debug, Clone, Deserialize)]
pub struct FailureCode {
    pub code: String,
    pub count: u64,
}

/// A redrive that was recorded.
#[derive(Debug, Clone, Deserialize)]
pub struct Redriven {
    pub id: Uuid,
    pub handler: String,
    pub actor: String,
    pub moved: u64,
    /// Whether messages may have been left.
    pub more: bool,
    pub at: Timestamp,
}

/// A recorded sweep.
#[derive(Debug, Clone, Deserialize)]
pub struct Sweep {
    pub ended_at: Timestamp,
    pub ago_ms: i64,
    pub duration_ms: i64,
    pub failed: bool,
    /// `flow::sweep::Report`: what it recovered, by kind.
    pub report: Value,
}

/// Reads the health of the tenant's engine.
pub async fn health_fetch(session: &Session) -> Result<Health, Error> {
    // The indexes step_owed, attempt_leased and event_watched serve these. `step_owed` has no step of a paused run.
    let sql = format!(
        "with owed as materialized (
             select s.handler, s.ready_at
               from nofx.step s
              where s.tenant_id = $1 and s.status = 'ready' and s.notify_at < 'infinity'
              order by s.notify_at limit {COUNTED}),
         open as materialized (
             select a.step_id, a.lease_until
               from nofx.attempt a
              where a.tenant_id = $1 and a.finished_at is null
              order by a.lease_until limit {COUNTED}),
         lost as materialized (
             select e.run_id, e.step_id, e.timestamp
               from nofx.event e
              where e.tenant_id = $1 and e.type = 'step.worker_lost' and e.timestamp > now() - interval '1 hour'
              order by e.timestamp desc limit {COUNTED}),
         failed as materialized (
             select e.timestamp, e.payload -> 'error' ->> 'code' as code
               from nofx.event e
              where e.tenant_id = $1 and e.type = 'step.failed' and e.timestamp > now() - interval '1 day'
              order by e.timestamp desc limit {COUNTED}),
         steps as (
             select o.handler, o.ready_at <= now() as is_due, o.ready_at, false as is_running, false as is_overdue
               from owed o
             union all
             select s.handler, false, null, true, o.lease_until < now() - interval '3 minutes'
               from open o
               join nofx.step s on s.id = o.step_id)
         select coalesce((select json_agg(h) from (
                    select s.handler, count(*) filter (where s.is_due) as ready,
                           count(*) filter (where not s.is_due and not s.is_running) as retrying,
                           min(s.ready_at) filter (where s.is_due) as oldest,
                           (extract(epoch from now() - min(s.ready_at) filter (where s.is_due)) * 1000)::bigint as waits_ms,
                           count(*) filter (where s.is_running) as running,
                           count(*) filter (where s.is_overdue) as overdue
                      from steps s group by s.handler order by s.handler) h), '[]') as handlers,
                coalesce((select json_agg(l) from (
                    select l.run_id, s.name as step, s.handler, l.timestamp as at
                      from (select * from lost order by timestamp desc limit {LISTED}) l
                      join nofx.step s on s.id = l.step_id order by l.timestamp desc) l), '[]') as lost,
                (select count(*) from lost) as lost_total,
                coalesce((select json_agg(f) from (
                    select coalesce(f.code, 'none') as code, count(*) as count
                      from failed f where f.timestamp > now() - interval '1 hour'
                     group by f.code order by count(*) desc, f.code limit {LISTED}) f), '[]') as failures,
                (select count(*) from failed f where f.code = 'undeliverable') as undeliverable,
                coalesce((select json_agg(m) from (
                    select m.id, m.handler, m.actor, m.moved, m.more, m.at
                      from unnest($2::text[]) h(name)
                     cross join lateral (
                         select e.payload ->> 'id' as id, e.subject as handler, e.actor,
                                (e.payload ->> 'moved')::bigint as moved, (e.payload ->> 'more')::boolean as more,
                                e.timestamp as at
                           from nofx.tenant_event e
                          where e.tenant_id = $1 and e.subject = h.name and e.type = 'queue.redriven'
                          order by e.id desc limit {LISTED}) m
                     order by m.at desc limit {LISTED}) m), '[]') as redrives,
                (select row_to_json(w) from (
                    select w.ended_at, (extract(epoch from now() - w.ended_at) * 1000)::bigint as ago_ms, w.duration_ms,
                           w.failed, w.report
                      from nofx.sweep w where w.tenant_id = $1) w) as sweep,
                {WAITING} as waiting"
    );
    let handlers: Vec<&str> = HANDLERS.iter().chain([&LONG_GATES]).map(|handler| handler.name).collect();
    let params: [Arg<'_>; 1] = [(&handlers, Type::TEXT_ARRAY)];
    let health: Option<Health> = row::fetch(session, &sql, &params).await?;
    health.ok_or_else(|| Error::internal("read the health", "no row"))
}
