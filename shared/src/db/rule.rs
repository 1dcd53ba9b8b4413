//! Rules of `db_write`: set, delete, read.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::page::{Page, page};
use super::row;
use super::session::{Arg, Session};
use crate::domain::rule::{DEFAULT_MAX_ROWS, DEFAULT_ROLE, Op, Rule};
use crate::error::Error;
use crate::view::{self, RuleDetail};

/// A rule to store for `schema.table`.
#[derive(Debug, Serialize)]
struct SetCall<'a> {
    table_name: &'a str,
    actor: &'a str,
    allowed_ops: &'a [Op],
    /// A [`Rule`] without its operations.
    constraints: Value,
}

/// Result of storing a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum RuleSet {
    Created,
    Replaced,
    /// The table is in a schema that no rule can open.
    Closed,
}

/// Result of deleting a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum RuleDeleted {
    Deleted,
    NotFound,
}

#[derive(Debug, Serialize)]
struct DeleteCall<'a> {
    table_name: &'a str,
    actor: &'a str,
}

/// Columns of a rule as the API shows it, with defaults for missing keys. The query names the rule `r`.
fn columns() -> String {
    format!(
        "r.id, r.table_name as \"table\", r.allowed_ops, r.constraints -> 'columns' as columns,
         r.constraints -> 'key' as key, coalesce(r.constraints -> 'max_rows', to_jsonb({DEFAULT_MAX_ROWS})) as max_rows,
         coalesce(r.constraints -> 'role', to_jsonb('{DEFAULT_ROLE}'::text)) as role,
         r.constraints -> 'triggers' as triggers, r.constraints -> 'dependants' as dependants,
         r.constraints -> 'allow' as allow, r.created_at, r.updated_at"
    )
}

/// Stores a rule. It replaces the table's earlier one.
pub async fn rule_set(session: &Session, table: &str, actor: &str, rule: &Rule) -> Result<RuleSet, Error> {
    let mut constraints = serde_json::to_value(rule).map_err(|error| Error::internal("write a rule", error))?;
    if let Value::Object(fields) = &mut constraints {
        fields.remove("allowed_ops");
    }
    let call = SetCall { table_name: table, actor, allowed_ops: &rule.allowed_ops, constraints };
    session.transition("select nofx.rule_set($1)", &call).await
}

/// Deletes a rule. Plans can no longer write the table.
pub async fn rule_delete(session: &Session, table: &str, actor: &str) -> Result<RuleDeleted, Error> {
    let call = DeleteCall { table_name: table, actor };
    session.transition("select nofx.rule_delete($1)", &call).await
}

/// Rules of a tenant, ordered by table name, after the one with the id `after`.
pub async fn rule_list(session: &Session, after: Option<Uuid>, limit: i64) -> Result<Page<view::Rule>, Error> {
    let sql = format!(
        "select {} from nofx.db_write_rule r
          where r.tenant_id = $1
            and ($3::uuid is null or r.table_name > (
                select c.table_name from nofx.db_write_rule c where c.tenant_id = $1 and c.id = $3))
          order by r.table_name limit $2 + 1",
        columns()
    );
    let params: [Arg<'_>; 2] = [(&limit, Type::INT8), (&after, Type::UUID)];
    page(session, &sql, limit, &params).await
}

/// Whether the tenant has such a rule.
pub async fn rule_exists(session: &Session, rule: Uuid) -> Result<bool, Error> {
    let sql = "select from nofx.db_write_rule r where r.tenant_id = $1 and r.id = $2";
    row::exists(session, sql, &[(&rule, Type::UUID)]).await
}

/// A table's rule, the table's current definition, and the newest changes of the rule.
pub async fn rule_fetch(session: &Session, table: &str) -> Result<Option<RuleDetail>, Error> {
    let sql = format!(
        "select {},
                nofx.db_write_target(split_part(r.table_name, '.', 1), split_part(r.table_name, '.', 2),
                                     nofx.keys_of(r.constraints -> 'dependants')) as target,
                coalesce((
                    select json_agg(change) from (
                        select e.type, e.actor, e.payload, e.timestamp
                          from nofx.tenant_event e
                         where e.tenant_id = $1 and e.subject = r.table_name
                         order by e.id desc limit 20) change), '[]') as changes
           from nofx.db_write_rule r
          where r.tenant_id = $1 and r.table_name = $2",
        columns()
    );
    row::fetch(session, &sql, &[(&table, Type::TEXT)]).await
}
