//! The gates that wait for a person.

use serde::Deserialize;
use tokio_postgres::types::Type;

use super::WAITING;
use super::gate::{GATE, GATE_JOINS, Gate};
use crate::db::pool::Database;
use crate::db::row;
use crate::domain::{GateId, TenantId};
use crate::error::Error;

/// Gates on a page.
const PAGE: usize = 50;

/// A page of pending gates, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Inbox {
    pub gates: Vec<Gate>,
    /// Pending gates of the tenant, counted up to 100.
    pub waiting: u64,
    /// The last gate of this page, if newer ones follow.
    pub newer: Option<GateId>,
    /// Whether this is not the first page.
    pub is_continuation: bool,
}

/// Pending gates after `after`, oldest first.
pub async fn inbox_list(db: &Database, tenant: &TenantId, after: Option<GateId>) -> Result<Inbox, Error> {
    #[derive(Deserialize)]
    struct Found {
        gates: Vec<Gate>,
        waiting: u64,
    }
    // A cursor is the id of a gate, and its position is looked up. An unknown id gives an empty page.
    let sql = format!(
        "select coalesce((select json_agg(gate) from (
                    select {GATE} from nofx.gate g {GATE_JOINS}
                     where g.tenant_id = $1 and g.status = 'pending'
                       and ($2::uuid is null or (g.created_at, g.id) > (
                           select c.created_at, c.id from nofx.gate c where c.tenant_id = $1 and c.id = $2))
                     order by g.created_at, g.id limit {PAGE} + 1) gate), '[]') as gates,
                {WAITING} as waiting"
    );
    let after_id = after.map(|id| id.0);
    let found: Option<Found> = row::fetch(db, &sql, &[(&tenant.0, Type::TEXT), (&after_id, Type::UUID)]).await?;
    let Found { mut gates, waiting } = found.ok_or_else(|| Error::internal("list gates", "no row"))?;
    let has_more = gates.len() > PAGE;
    gates.truncate(PAGE);
    let newer = gates.last().filter(|_| has_more).map(|gate| gate.id);
    Ok(Inbox { gates, waiting, newer, is_continuation: after.is_some() })
}
