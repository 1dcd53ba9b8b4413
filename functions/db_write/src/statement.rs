//! Translates an operation to SQL. Identifiers are quoted. Values are JSON parameters, which Postgres converts to the
//! column types. Functions and operators are qualified with their schema.

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use shared::db::Param;
use shared::db::db_write::{WriteSession, quoted};
use shared::domain::number;
use shared::domain::operation::{Kind, Operation, Table};
use shared::domain::rule::Rule;
use tokio_postgres::types::{Json, Type};

use crate::error::WriteError;
use crate::exact;

/// A written row.
pub(crate) struct WrittenRow {
    /// The key columns, or the written columns if the rule has no key. Numbers that JSON cannot hold exactly are
    /// strings.
    pub key: Value,
    /// Whether the written columns have the values of the plan.
    pub matches_input: bool,
}

/// Rejects values that the column types would change: db_write stores exact values or nothing.
pub(crate) async fn check_values(session: &WriteSession<'_>, operation: &Operation) -> Result<(), WriteError> {
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
    let stored_rows = session.query(&sql, &[(&Json(&rows), Type::JSONB)]).await?;
    for (given, row) in rows.iter().zip(&stored_rows) {
        let text: Json<Box<RawValue>> = row.try_get(0)?;
        let stored: Value = serde_json::from_str(&number::quoted_where_inexact(text.0.get())).unwrap_or_default();
        for (column, value) in *given {
            let is_key = std::ptr::eq(*given, key);
            if !exact::is_exact(value, &stored[column]) || is_key && !exact::is_exact_key(value, &stored[column]) {
                return Err(exact::inexact(&operation.table.to_string(), column, is_key));
            }
        }
    }
    Ok(())
}

/// Executes the operation and returns each row that it touched.
pub(crate) async fn execute(
    session: &WriteSession<'_>,
    operation: &Operation,
    rule: &Rule,
) -> Result<Vec<WrittenRow>, WriteError> {
    let table = quoted_table(&operation.table);
    let key = &rule.key;
    let returned: Vec<&str> =
        if key.is_empty() { operation.kind.written_columns() } else { key.iter().map(String::as_str).collect() };
    let (returned, stored) = (object("t", &returned), object("t", &operation.kind.written_columns()));
    let rows = match &operation.kind {
        Kind::Insert { rows } => {
            let columns = operation.kind.written_columns();
            let sql = format!(
                "with source as materialized (
                     select e.n as n, pg_catalog.jsonb_populate_record(null::{table}, e.v) as r
                       from pg_catalog.jsonb_array_elements($1) with ordinality as e(v, n)
                 ), given as (
                     insert into {table} as t ({names})
                     select {values} from source order by source.n
                     returning {returned} as key, {stored} as stored
                 ), numbered as (
                     select pg_catalog.row_number() over () as n, given.key, given.stored from given
                 ), expected as (
                     select source.n, {expected} as stored from source
                 )
                 select numbered.key, numbered.stored operator(pg_catalog.=) expected.stored
                   from numbered join expected on expected.n operator(pg_catalog.=) numbered.n",
                names = columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", "),
                values = columns
                    .iter()
                    .map(|column| format!("(source.r).{}", quoted(column)))
                    .collect::<Vec<_>>()
                    .join(", "),
                expected = object("(source.r)", &columns),
            );
            session.query(&sql, &[(&Json(rows), Type::JSONB)]).await?
        }
        Kind::Update { key, set } => {
            let columns = operation.kind.written_columns();
            let sql = format!(
                "with source as materialized (
                     select pg_catalog.jsonb_populate_record(null::{table}, $1) as k,
                            pg_catalog.jsonb_populate_record(null::{table}, $2) as s
                 ), given as (
                     update {table} as t set {assignments} from source where {predicate}
                     returning {returned} as key, {stored} as stored
                 )
                 select given.key, given.stored operator(pg_catalog.=) (select {expected} from source) from given",
                assignments = columns
                    .iter()
                    .map(|column| format!("{0} = (source.s).{0}", quoted(column)))
                    .collect::<Vec<_>>()
                    .join(", "),
                predicate = predicate(key),
                expected = object("(source.s)", &columns),
            );
            let params: [Param<'_>; 2] = [(&Json(key), Type::JSONB), (&Json(set), Type::JSONB)];
            session.query(&sql, &params).await?
        }
        Kind::Delete { key } => {
            let sql = format!(
                "with source as materialized (select pg_catalog.jsonb_populate_record(null::{table}, $1) as k),
                 given as (delete from {table} as t using source where {} returning {returned} as key)
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
            Ok(WrittenRow { key, matches_input: row.try_get(1)? })
        })
        .collect()
}

/// An SQL expression for a JSON object of these columns. It uses a subquery, because a function takes a limited number
/// of arguments. `.*` is the subquery's row even if a column has the same name.
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
