//! Tool `db_write`: writes rows to a table that a rule allows. The same transaction writes the rows and finishes the step,
//! so a message that is delivered twice writes once. A plan contains no SQL. `docs/db_write.md` explains the model.

mod error;
mod exact;
mod rule;
mod statement;
mod target;

use serde_json::json;
use shared::db::db_write::{WriteSession, db_write_look};
use shared::domain::operation::Operation;
use shared::domain::{NewEvent, Outcome, StepError};
use shared::worker::{ClaimedStep, TransactionHandler};
use tokio::time::Instant;
use tokio_postgres::Transaction;

use crate::error::WriteError;
use crate::statement::WrittenRow;

/// The handler of tool `db_write`.
pub struct DbWrite;

impl TransactionHandler for DbWrite {
    async fn handle(&self, step: &ClaimedStep, transaction: &Transaction<'_>) -> Outcome {
        match write(step, transaction).await {
            Ok((operation, written)) => succeeded(&operation, written),
            Err(error) => error.outcome(),
        }
    }
}

async fn write(step: &ClaimedStep, transaction: &Transaction<'_>) -> Result<(Operation, Vec<WrittenRow>), WriteError> {
    let operation =
        Operation::parse(&step.inputs).map_err(|problems| WriteError::Denied(StepError::invalid_inputs(problems)))?;
    let table = &operation.table;
    let deadline = Instant::now() + step.timeout;
    let look = db_write_look(transaction, step, &table.schema, &table.name).await?.ok_or_else(no_result)?;
    if look.closed {
        return Err(WriteError::denied("no_rule", format!("plans may not write to the schema {}", table.schema)));
    }
    let (Some(stored), Some(writer)) = (look.rule, look.role) else {
        return Err(WriteError::denied("no_rule", format!("no rule allows writing to {table}")));
    };
    if !look.is_rule_approved {
        return Err(WriteError::RuleChanged);
    }
    let rule = rule::read(&stored)?;
    rule.check(&operation).map_err(WriteError::Denied)?;
    target::check_role(&writer)?;
    let target =
        look.target.ok_or_else(|| WriteError::denied("unknown_table", format!("the table {table} does not exist")))?;
    target::check_target(&target, &operation, &rule)?;

    let session = WriteSession { transaction, tenant: &step.tenant_id, role: &writer.name, deadline };
    session.claim_tenant().await?;
    statement::check_values(&session, &operation).await?;
    let written = statement::execute(&session, &operation, &rule).await?;
    let rows = written.len();
    if rows > rule.max_rows {
        let message = format!("the write touches {rows} rows; the rule allows {}", rule.max_rows);
        return Err(WriteError::denied("too_many_rows", message));
    }
    if let Some(expected) = operation.expected_rows
        && rows != expected
    {
        let message = format!("the write touches {rows} rows; expected_rows is {expected}");
        return Err(WriteError::denied("unexpected_rows", message));
    }
    if written.iter().any(|row| !row.matches_input) {
        let message = format!("a trigger or rewrite rule of {table} changed the values of the plan");
        return Err(WriteError::denied("unexpected_effects", message));
    }
    session.force_constraints().await?;
    let dependants: Vec<_> = rule.dependants.keys().collect();
    let account = session.account(&table.schema, &table.name, &dependants).await?.ok_or_else(no_result)?;
    let account = account.since(&look.effects);
    target::check_effects(&account, &target, &operation, &rule, u64::try_from(rows).unwrap_or(u64::MAX))?;
    Ok((operation, written))
}

fn no_result() -> WriteError {
    WriteError::denied("database_refused", "the database returned no result")
}

fn succeeded(operation: &Operation, written: Vec<WrittenRow>) -> Outcome {
    let summary =
        json!({"table": operation.table.to_string(), "op": operation.kind.op().name(), "rows": written.len()});
    let mut outputs = summary.as_object().cloned().unwrap_or_default();
    outputs.insert("keys".into(), written.into_iter().map(|row| row.key).collect());
    let mut outcome = Outcome::succeeded(outputs);
    // Only counts and names: events must not contain data.
    outcome.events.push(NewEvent { kind: "db_write.executed".into(), payload: summary });
    outcome
}
