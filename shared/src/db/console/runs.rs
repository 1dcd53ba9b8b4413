//! The list of runs, and the inbox of pending gates.

use serde::Deserialize;
use tokio_postgres::types::Type;

use super::gate::{GATE, GATE_JOINS, Gate};
use crate::db::pool::{Database, Param};
use crate::db::row;
use crate::domain::{GateId, RunId, RunStatus, TenantId, Timestamp};
use crate::error::Error;

/// Runs on a page.
const PAGE: usize = 50;
/// Gates in the inbox.
const INBOX: usize = 50;

/// The list of runs, and the inbox of pending gates above it.
#[derive(Debug, Clone, Default)]
pub struct RunList {
    pub inbox: Vec<Gate>,
    /// The last gate in the inbox, if more are pending.
    pub inbox_next: Option<GateId>,
    /// Whether the inbox starts after the oldest gate.
    pub inbox_is_continuation: bool,
    pub runs: Vec<RunRow>,
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
    /// From start to end, or until now.
    pub duration_ms: Option<i64>,
}

/// Runs after `after`, newest first, and pending gates after `inbox_after`, oldest first.
pub async fn run_list(
    db: &Database,
    tenant: &TenantId,
    after: Option<RunId>,
    inbox_after: Option<GateId>,
) -> Result<RunList, Error> {
    #[derive(Deserialize)]
    struct Found {
        runs: Vec<RunRow>,
        inbox: Vec<Gate>,
    }
    // A cursor is the id of a run or a gate, and its position is looked up. An unknown id gives an empty page.
    let sql = format!(
        "select coalesce((select json_agg(run) from (
                    select r.id, r.status, left(r.goal, 300) as goal, r.created_at,
                           (extract(epoch from coalesce(r.finished_at, now()) - r.started_at) * 1000)::bigint
                               as duration_ms
                      from nofx.run r
                     where r.tenant_id = $1
                       and ($2::uuid is null or (r.created_at, r.id) < (
                           select c.created_at, c.id from nofx.run c where c.tenant_id = $1 and c.id = $2))
                     order by r.created_at desc, r.id desc limit {PAGE} + 1) run), '[]') as runs,
                coalesce((select json_agg(gate) from (
                    select {GATE} from nofx.gate g {GATE_JOINS}
                     where g.tenant_id = $1 and g.status = 'pending'
                       and ($3::uuid is null or (g.created_at, g.id) > (
                           select c.created_at, c.id from nofx.gate c where c.tenant_id = $1 and c.id = $3))
                     order by g.created_at, g.id limit {INBOX} + 1) gate), '[]') as inbox"
    );
    let (after_id, inbox_id) = (after.map(|id| id.0), inbox_after.map(|id| id.0));
    let params: [Param<'_>; 3] = [(&tenant.0, Type::TEXT), (&after_id, Type::UUID), (&inbox_id, Type::UUID)];
    let found: Option<Found> = row::fetch(db, &sql, &params).await?;
    let Found { mut runs, mut inbox } = found.ok_or_else(|| Error::internal("list runs", "no row"))?;
    let (has_more, inbox_has_more) = (runs.len() > PAGE, inbox.len() > INBOX);
    runs.truncate(PAGE);
    inbox.truncate(INBOX);
    let older = runs.last().filter(|_| has_more).map(|run| run.id);
    let inbox_next = inbox.last().filter(|_| inbox_has_more).map(|gate| gate.id);
    let (is_continuation, inbox_is_continuation) = (after.is_some(), inbox_after.is_some());
    Ok(RunList { inbox, inbox_next, inbox_is_continuation, runs, older, is_continuation })
}
