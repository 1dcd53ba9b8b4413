//! The list of runs.

use std::collections::HashMap;

use serde::Deserialize;

use super::WAITING;
use crate::db::row;
use crate::db::run::{Listing, RunFilter, ScannedRun};
use crate::db::session::Session;
use crate::domain::{RunId, RunStatus, Timestamp};
use crate::error::Error;

/// Runs on a page.
const PAGE: usize = 50;

/// The list of runs.
#[derive(Debug, Clone, Default)]
pub struct RunList {
    pub runs: Vec<RunRow>,
    pub counts: RunCounts,
    /// Pending gates of the tenant, counted up to 100.
    pub waiting: u64,
    /// The last run that was read for this page, if older ones follow.
    pub older: Option<RunId>,
    /// Whether this is not the first page.
    pub is_continuation: bool,
}

/// Runs in each state that match the other filters.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RunCounts {
    pub by_status: HashMap<RunStatus, u64>,
    /// Older runs were not counted.
    pub is_cut: bool,
}

/// A run in the list.
#[derive(Debug, Clone, Deserialize)]
pub struct RunRow {
    pub id: RunId,
    pub status: RunStatus,
    pub goal: String,
    /// Who started it.
    pub created_by: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    /// From start to end, once it has ended.
    pub duration_ms: Option<i64>,
    pub steps: StepCounts,
    /// The first step that has failed.
    pub failed_step: Option<String>,
    /// Why the run failed, if no step did.
    pub failure: Option<String>,
    /// The oldest gate that a blocked run waits for.
    pub waits_for: Option<WaitsFor>,
}

/// A gate that a run waits for.
#[derive(Debug, Clone, Deserialize)]
pub struct WaitsFor {
    /// None for a gate of the run itself.
    pub step: Option<String>,
    pub gate_type: String,
}

/// The steps of a run by state.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct StepCounts {
    pub total: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub blocked: u64,
    pub running: u64,
    /// Skipped or cancelled.
    pub dropped: u64,
}

impl RunCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.by_status.values().sum()
    }

    /// Those in one of these states.
    pub fn of(&self, statuses: &[RunStatus]) -> u64 {
        statuses.iter().filter_map(|status| self.by_status.get(status)).sum()
    }
}

/// Runs that match the filter after `after`, newest first. If few runs match, a page can have no rows and still have a
/// next page.
pub async fn run_list(session: &Session, filter: &RunFilter, after: Option<RunId>) -> Result<RunList, Error> {
    #[derive(Deserialize)]
    struct Found {
        runs: Vec<ScannedRun<RunRow>>,
        counts: RunCounts,
        waiting: u64,
    }
    let listing = Listing::new(filter, after, i64::try_from(PAGE).unwrap_or(i64::MAX));
    let sql = format!(
        "select coalesce((select json_agg(listed) from ({}) listed), '[]') as runs, ({}) as counts, {WAITING} as waiting",
        listing.sql(READ, SHOWN),
        listing.counts(),
    );
    let found: Option<Found> = row::fetch(session, &sql, &listing.params()).await?;
    let Found { mut runs, counts, waiting } = found.ok_or_else(|| Error::internal("list runs", "no row"))?;
    let has_more = runs.len() > PAGE;
    runs.truncate(PAGE);
    let older = runs.last().filter(|last| has_more || last.is_last).map(|last| last.id);
    let runs = runs.into_iter().filter_map(|scanned| scanned.run).collect();
    Ok(RunList { runs, counts, waiting, older, is_continuation: after.is_some() })
}

const READ: &str = "r.id, r.status, r.goal, r.created_by, r.created_at, r.started_at, r.finished_at, r.failure";

/// Columns of a [`RunRow`]. They are computed only for runs of the page.
const SHOWN: &str = concat!(
    "r.id, r.status, ",
    cut!("r.goal", 300),
    " as goal, r.created_by, r.created_at, r.started_at,
        floor(extract(epoch from r.finished_at - r.started_at) * 1000)::bigint as duration_ms,
        (select json_build_object(
                    'total', count(*), 'succeeded', count(*) filter (where s.status = 'succeeded'),
                    'failed', count(*) filter (where s.status = 'failed'),
                    'blocked', count(*) filter (where s.status = 'blocked'),
                    'running', count(*) filter (where s.status = 'running'),
                    'dropped', count(*) filter (where s.status in ('skipped', 'cancelled')))
           from nofx.step s where s.tenant_id = $1 and s.run_id = r.id) as steps,
        case when r.status in ('failed', 'running') then (
            select s.name from nofx.step s
             where s.tenant_id = $1 and s.run_id = r.id and s.status = 'failed'
             order by s.ordinal limit 1) end as failed_step,
        ",
    cut!("r.failure ->> 'message'", 200),
    " as failure,
        case when r.status = 'blocked' then (
            select json_build_object('step', s.name, 'gate_type', left(g.gate_type, 100))
              from nofx.gate g
              left join nofx.step s on s.id = g.step_id
             where g.tenant_id = $1 and g.run_id = r.id and g.status = 'pending'
             order by g.created_at, g.id limit 1) end as waits_for"
);
