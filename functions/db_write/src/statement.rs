//! Translates an operation to SQL. Identifiers are quoted. Values are bound JSON parameters, which the table's own
//! types read. Functions and operators are named with their schema.

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use shared::db::Param;
use shared::db::db_write::{WriteSession, quoted};
use shared::domain::number;
use shared::domain::rule::Rule;
use tokio_postgres::types::{Json, Type};

use crate::faithful;
use crate::operation::{Kind, Operation, Table};
use crate::refusal::Refusal;

/// A row that was written.
pub(crate) struct Written {
    /// Its key columns, or the written columns if the rule has no key. Numbers that JSON cannot hold exactly are
    /// strings.
    pub key: Value,
    /// Whether the written columns have the given values.
    pub same: bool,
}

/// Refuses values that the table's types would change: what is stored is what was asked for, or nothing.
pub(crate) async fn check_values(session: &WriteSession<'_>, operation: &Operation) -> Result<(), Refusal> {
    let empty = Map::new();
    let (rows, key): (Vec<&Map<String, Value>>, &Map<String, Value>) = match &operation.kind {
        Kind::Insert { rows } => (rows.iter().collect(), &empty),
        Kind::Update { key, set } => (vec![key, set], key),
        Kind::Delete { key } => (vec![key], key),
    };
    let sql = format!(
        "select pg_catalog.to_jsonb(pg_catalog.jsonb_populate_record(null::{table}, g.v))
           from pg_catalog.jsonb_array_elements($1) with ordinality as g(v, n) order by g.n",
        table = quoted_table(&operation.table)
    );
    let read = session.query(&sql, &[(&Json(&rows), Type::JSONB)]).await?;
    for (given, row) in rows.iter().zip(&read) {
        let text: Json<Box<RawValue>> = row.try_get(0)?;
        let stored: Value = serde_json::from_str(&number::quoted_where_inexact(text.0.get())).unwrap_or_default();
        for (column, value) in *given {
            let is_key = std::ptr::eq(*given, key);
            if !faithful::is_kept(value, &stored[column]) || is_key && !faithful::is_same(value, &stored[column]) {
                return Err(faithful::refusal(&operation.table.to_string(), column, is_key));
            }
        }
    }
    Ok(())
}

/// Writes, and returns each touched row.
pub(crate) async fn execute(
    session: &WriteSession<'_>,
    operation: &Operation,
    rule: &Rule,
) -> Result<Vec<Written>, Refusal> {
    let table = quoted_table(&operation.table);
    let key = &rule.key;
    let shown: Vec<&str> =
        if key.is_empty() { operation.kind.written() } else { key.iter().map(String::as_str).collect() };
    let (shown, stored) = (object("t", &shown), object("t", &operation.kind.written()));
    let rows = match &operation.kind {
        Kind::Insert { rows } => {
            let columns = operation.kind.written();
            let sql = format!(
                "with source as materialized (
                     select e.n as n, pg_catalog.jsonb_populate_record(null::{table}, e.v) as r
                       from pg_catalog.jsonb_array_elements($1) with ordinality as e(v, n)
                 ), given as (
                     insert into {table} as t ({names})
                     select {values} from source order by source.n
                     returning {shown} as key, {stored} as stored
                 ), numbered as (
                     select pg_catalog.row_number() over () as n, given.key, given.stored from given
                 ), asked as (
                     select source.n, {asked} as stored from source
                 )
                 select numbered.key, numbered.stored operator(pg_catalog.=) asked.stored
                   from numbered join asked on asked.n operator(pg_catalog.=) numbered.n",
                names = columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", "),
                values = columns
                    .iter()
                    .map(|column| format!("(source.r).{}", quoted(column)))
                    .collect::<Vec<_>>()
                    .join(", "),
                asked = object("(source.r)", &columns),
            );
            session.query(&sql, &[(&Json(rows), Type::JSONB)]).await?
        }
        Kind::Update { key, set } => {
            let columns = operation.kind.written();
            let sql = format!(
                "with source as materialized (
                     select pg_catalog.jsonb_populate_record(null::{table}, $1) as k,
                            pg_catalog.jsonb_populate_record(null::{table}, $2) as s
                 ), given as (
                     update {table} as t set {assignments} from source where {predicate}
                     returning {shown} as key, {stored} as stored
                 )
                 select given.key, given.stored operator(pg_catalog.=) (select {asked} from source) from given",
                assignments = columns
                    .iter()
                    .map(|column| format!("{0} = (source.s).{0}", quoted(column)))
                    .collect::<Vec<_>>()
                    .join(", "),
                predicate = predicate(key),
                asked = object("(source.s)", &columns),
            );
            let params: [Param<'_>; 2] = [(&Json(key), Type::JSONB), (&Json(set), Type::JSONB)];
            session.query(&sql, &params).await?
        }
        Kind::Delete { key } => {
            let sql = format!(
                "with source as materialized (select pg_catalog.jsonb_populate_record(null::{table}, $1) as k),
                 given as (delete from {table} as t using source where {} returning {shown} as key)
                 select given.key, true from given",
                predicate(key)
            );
            session.query(&sql, &[(&Json(key), Type::JSONB)]).await?
        }
    };
    rows.iter()
        .map(|row| {
            let key: Json<Box<RawValue>> = row.try_get(0)?;
            let key = serde_json::from_str(&number::quoted_where_inexact(key.0.get())).unwrap_or_default();
            Ok(Written { key, same: row.try_get(1)? })
        })
        .collect()
}

/// A JSON object of these columns. It is built from a subquery, because a function has a limited number of arguments.
/// `.*` means the subquery's row even if a column has the same name.
fn object(of: &str, columns: &[&str]) -> String {
    let columns: Vec<_> = columns.iter().map(|column| format!("{of}.{0} as {0}", quoted(column))).collect();
    format!("(select pg_catalog.to_jsonb(\"nofx.row\".*) from (select {}) as \"nofx.row\")", columns.join(", "))
}

fn predicate(key: &Map<String, Value>) -> String {
    // `=`, not `is not distinct from`: null matches no row.
    let equal = |column: &String| format!("t.{0} operator(pg_catalog.=) (source.k).{0}", quoted(column));
    key.keys().map(equal).collect::<Vec<_>>().join(" and ")
}

fn quoted_table(table: &Table) -> String {
    format!("{}.{}", quoted(&table.schema), quoted(&table.name))
}
