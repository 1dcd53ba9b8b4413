//! Tool `db_write`: writes rows of a table that a rule allows, in the transaction that also finishes the step: delivered
//! twice, executed once. A plan holds no SQL text.

mod operation;
mod rule;
mod statement;

use serde_json::{Value, json};
use shared::domain::{NewEvent, Outcome, StepError};
use shared::worker::{ClaimedStep, TransactionHandler};
use tokio_postgres::Transaction;

pub use operation::Operation;
pub use rule::Rule;

/// Executes operations under the tenant's rules.
pub struct DbWrite;

impl TransactionHandler for DbWrite {
    async fn handle(&self, step: &ClaimedStep, transaction: &Transaction<'_>) -> Outcome {
        match write(step, transaction).await {
            Ok((operation, rows)) => succeeded(&operation, &rows),
            Err(Refusal::Denied(error)) => Outcome::failed(error),
            Err(Refusal::Database(error)) => statement::outcome_of(&error),
        }
    }
}

/// Why nothing was written.
pub(crate) enum Refusal {
    Denied(StepError),
    Database(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Refusal {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl Refusal {
    pub(crate) fn denied(code: &str, message: impl Into<String>) -> Self {
        Self::Denied(StepError::new(code, message))
    }
}

async fn write(step: &ClaimedStep, transaction: &Transaction<'_>) -> Result<(Operation, Vec<Value>), Refusal> {
    let operation = Operation::parse(&step.inputs)?;
    let rule = Rule::fetch(transaction, &step.tenant_id, &operation.table).await?;
    rule.check(&operation)?;
    let rows = statement::execute(transaction, &operation, &rule).await?;
    if rows.len() > rule.max_rows {
        let message = format!("touches {} rows; the rule allows {} a statement", rows.len(), rule.max_rows);
        return Err(Refusal::denied("too_many_rows", message));
    }
    Ok((operation, rows))
}

fn succeeded(operation: &Operation, rows: &[Value]) -> Outcome {
    let facts = json!({"table": operation.table.to_string(), "op": operation.kind.name(), "rows": rows.len()});
    let mut outputs = facts.as_object().cloned().unwrap_or_default();
    outputs.insert("keys".into(), json!(rows));
    let mut outcome = Outcome::succeeded(outputs);
    // Counts and names only: rows of data stay out of the timeline.
    outcome.events.push(NewEvent { kind: "db_write.executed".into(), payload: facts });
    outcome
}
