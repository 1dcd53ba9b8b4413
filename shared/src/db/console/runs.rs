//! The list of runs.

use serde::Deserialize;
use tokio_postgres::types::Type;

use super::WAITING;
use crate::db::pool::Database;
use crate::db::row;
use crate::domain::{RunId, RunStatus, TenantId, Timestamp};
use crate::error::Error;

/// Runs on a page.
const PAGE: usize = 50;

/// The list of runs.
#[derive(Debug, Clone, Default)]
pub struct RunList {
    pub runs: Vec<RunRow>,
    /// Pending gates of the tenant, counted up to 100.
    pub waiting: u64,
    /// The last run of this page, if older ones follow.
    pub older: Option<RunId>,
    /// Whether this is not the first page.
    pub is_continuation: bool,
}

/// A run in the list.
#[derive(Debug, Clone, Deserialize)]
pub struct RunRow {
    pub id: RunId,
    pub status: RunStatus,
    pub goal: String,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    /// From start to end, once it has ended.
    pub duration_ms: Option<i64>,
    pub steps: StepCounts,
    /// The first step that waits for a person or has failed.
    pub loud_step: Option<String>,
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

/// Runs after `after`, newest first.
pub async fn run_list(db: &Database, tenant: &TenantId, after: Option<RunId>) -> Result<RunList, Error> {
    #[derive(Deserialize)]
    struct Found {
        runs: Vec<RunRow>,
        waiting: u64,
    }
    // A cursor is the id of a run, and its position is looked up. An unknown id gives an empty page.
    let sql = format!(
        "select coalesce((select json_agg(run) from (
                    select r.id, r.status, left(r.goal, 300) as goal, r.created_at, r.started_at,
                           (extract(epoch from r.finished_at - r.started_at) * 1000)::bigint as duration_ms,
                           ({STEP_COUNTS}) as steps,
                           (select s.name from nofx.step s
                             where s.tenant_id = $1 and s.run_id = r.id and s.status in ('failed', 'blocked')
                             order by s.status desc, s.ordinal limit 1) as loud_step
                      from nofx.run r
                     where r.tenant_id = $1
                       and ($2::uuid is null or (r.created_at, r.id) < (
                           select c.created_at, c.id from nofx.run c where c.tenant_id = $1 and c.id = $2))
                     order by r.created_at desc, r.id desc limit {PAGE} + 1) run), '[]') as runs,
                {WAITING} as waiting"
    );
    let after_id = after.map(|id| id.0);
    let found: Option<Found> = row::fetch(db, &sql, &[(&tenant.0, Type::TEXT), (&after_id, Type::UUID)]).await?;
    let Found { mut runs, waiting } = found.ok_or_else(|| Error::internal("list runs", "no row"))?;
    let has_more = runs.len() > PAGE;
    runs.truncate(PAGE);
    let older = runs.last().filter(|_| has_more).map(|run| run.id);
    Ok(RunList { runs, waiting, older, is_continuation: after.is_some() })
}

const STEP_COUNTS: &str = "select json_build_object(
            'total', count(*), 'succeeded', count(*) filter (where s.status = 'succeeded'),
            'failed', count(*) filter (where s.status = 'failed'),
            'blocked', count(*) filter (where s.status = 'blocked'),
            'running', count(*) filter (where s.status = 'running'),
            'dropped', count(*) filter (where s.status in ('skipped', 'cancelled')))
       from nofx.step s where s.tenant_id = $1 and s.run_id = r.id";
