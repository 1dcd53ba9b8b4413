//! The rules of `db_write`.

use serde::Deserialize;
use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::WAITING;
use crate::db::row;
use crate::db::session::Session;
use crate::domain::Timestamp;
use crate::domain::rule::{DEFAULT_MAX_ROWS, Op};
use crate::error::Error;

/// Rules on a page.
const PAGE: usize = 50;

/// A page of rules, by the name of their table.
#[derive(Debug, Clone, Default)]
pub struct RuleList {
    pub rules: Vec<RuleRow>,
    /// The last rule of this page, if more follow.
    pub next: Option<Uuid>,
    /// Whether this is not the first page.
    pub is_continuation: bool,
    /// Pending gates of the tenant, counted up to 100.
    pub waiting: u64,
}

/// A rule in the list. One that was written with SQL may be malformed, so values are as they are stored.
#[derive(Debug, Clone, Deserialize)]
pub struct RuleRow {
    pub id: Uuid,
    pub table: String,
    pub allowed_ops: Vec<Op>,
    pub columns: Option<Value>,
    pub max_rows: Value,
    /// Who changed it last.
    pub changed_by: Option<String>,
    pub changed_at: Timestamp,
}

/// Rules of the tenant after the one with the id `after`.
pub async fn rule_list(session: &Session, after: Option<Uuid>) -> Result<RuleList, Error> {
    #[derive(Deserialize)]
    struct Found {
        rules: Vec<RuleRow>,
        waiting: u64,
    }
    // A cursor is the id of a rule, and its position is looked up. An unknown id gives an empty page.
    let sql = format!(
        "select coalesce((select json_agg(rule) from (
                    select r.id, r.table_name as \"table\", r.allowed_ops, r.constraints -> 'columns' as columns,
                           coalesce(r.constraints -> 'max_rows', to_jsonb({DEFAULT_MAX_ROWS})) as max_rows,
                           (select e.actor from nofx.tenant_event e
                             where e.tenant_id = $1 and e.subject = r.table_name order by e.id desc limit 1) as changed_by,
                           r.updated_at as changed_at
                      from nofx.db_write_rule r
                     where r.tenant_id = $1
                       and ($2::uuid is null or r.table_name > (
                           select c.table_name from nofx.db_write_rule c where c.tenant_id = $1 and c.id = $2))
                     order by r.table_name limit {PAGE} + 1) rule), '[]') as rules,
                {WAITING} as waiting"
    );
    let found: Option<Found> = row::fetch(session, &sql, &[(&after, Type::UUID)]).await?;
    let Found { mut rules, waiting } = found.ok_or_else(|| Error::internal("list rules", "no row"))?;
    let has_more = rules.len() > PAGE;
    rules.truncate(PAGE);
    let next = rules.last().filter(|_| has_more).map(|rule| rule.id);
    Ok(RuleList { rules, next, is_continuation: after.is_some(), waiting })
}
