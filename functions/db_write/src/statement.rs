//! Operation -> SQL: quoted identifiers, every value in bound JSON parameters whose types the table itself gives.

use serde_json::{Map, Value};
use shared::domain::{Outcome, StepError};
use tokio_postgres::Transaction;
use tokio_postgres::types::{Json, ToSql, Type};

use crate::Refusal;
use crate::operation::{Kind, Operation, Table};
use crate::rule::Rule;

/// A statement that waits for somebody else's lock, or runs long, gives up well within the step's time.
const SESSION: &str = "set local lock_timeout = '5s'; set local statement_timeout = '20s'";

/// Executes and returns the key columns of each touched row (the written ones where the rule names no key).
pub(crate) async fn execute(
    transaction: &Transaction<'_>,
    operation: &Operation,
    rule: &Rule,
) -> Result<Vec<Value>, Refusal> {
    transaction.batch_execute(SESSION).await?;
    let table = quoted_table(&operation.table);
    let returning = returning(rule, operation);
    let rows = match &operation.kind {
        Kind::Insert { rows } => {
            let columns = list(rows[0].keys());
            let sql = format!(
                "with given as (insert into {table} ({columns})
                     select {columns} from jsonb_populate_recordset(null::{table}, $1) returning *)
                 select {returning} from given t"
            );
            transaction.query_typed(&sql, &[(&Json(rows), Type::JSONB)]).await?
        }
        Kind::Update { key, set } => {
            let assignments =
                set.keys().map(|column| format!("{0} = s.{0}", quoted(column))).collect::<Vec<_>>().join(", ");
            let sql = format!(
                "with given as (update {table} t set {assignments}
                     from jsonb_populate_record(null::{table}, $1) k, jsonb_populate_record(null::{table}, $2) s
                    where {} returning t.*)
                 select {returning} from given t",
                predicate(key)
            );
            let params: [(&(dyn ToSql + Sync), Type); 2] = [(&Json(key), Type::JSONB), (&Json(set), Type::JSONB)];
            transaction.query_typed(&sql, &params).await?
        }
        Kind::Delete { key } => {
            let sql = format!(
                "with given as (delete from {table} t using jsonb_populate_record(null::{table}, $1) k
                    where {} returning t.*)
                 select {returning} from given t",
                predicate(key)
            );
            transaction.query_typed(&sql, &[(&Json(key), Type::JSONB)]).await?
        }
    };
    rows.iter().map(|row| row.try_get(0).map_err(Refusal::from)).collect()
}

/// A refusal of the database in words; what may pass is tried again.
pub(crate) fn outcome_of(error: &tokio_postgres::Error) -> Outcome {
    let Some(refused) = error.as_db_error() else {
        return Outcome::retryable(StepError::new("database_unavailable", "the database is unavailable"));
    };
    let code = refused.code().code();
    // Serialisation and locks, resources, operator intervention.
    let transient = ["40", "53", "55", "57"].iter().any(|class| code.starts_with(class));
    let error = StepError::new("database_refused", format!("the database refused it: {} ({code})", refused.message()));
    if transient { Outcome::retryable(error) } else { Outcome::failed(error) }
}

fn returning(rule: &Rule, operation: &Operation) -> String {
    let shown: Vec<&str> =
        if rule.key.is_empty() { operation.kind.written() } else { rule.key.iter().map(String::as_str).collect() };
    let pairs: Vec<_> = shown.iter().map(|column| format!("{}, t.{}", literal(column), quoted(column))).collect();
    format!("jsonb_build_object({})", pairs.join(", "))
}

fn predicate(key: &Map<String, Value>) -> String {
    // `=` and not `is not distinct from`: a null finds nothing.
    key.keys().map(|column| format!("t.{0} = k.{0}", quoted(column))).collect::<Vec<_>>().join(" and ")
}

fn list<'a>(columns: impl Iterator<Item = &'a String>) -> String {
    columns.map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
}

fn quoted_table(table: &Table) -> String {
    format!("{}.{}", quoted(&table.schema), quoted(&table.name))
}

/// A delimited identifier (SQL: quotes inside are doubled).
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal; standard_conforming_strings has been on since PostgreSQL 9.1.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
