//! Errors of a write, with their codes and messages.

use serde_json::json;
use shared::domain::bounds::shortened;
use shared::domain::{Outcome, StepError};
use tokio_postgres::error::DbError;

/// A database message is cut to this many bytes. It may quote a value.
const MAX_DATABASE_MESSAGE_BYTES: usize = 500;

/// Why nothing was written.
#[derive(Debug)]
pub(crate) enum WriteError {
    Denied(StepError),
    /// People approved the step while another rule was in force. The next claim asks them again.
    RuleChanged,
    Database(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for WriteError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl WriteError {
    pub(crate) fn denied(code: &str, message: impl Into<String>) -> Self {
        Self::Denied(StepError::new(code, message))
    }

    /// The outcome of the step. Retryable if the cause is transient.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Denied(error) => Outcome::failed(error),
            Self::RuleChanged => {
                let message = "a rule changed after the step was approved; its next attempt asks for approval again";
                Outcome::retryable(StepError::new("rule_changed", message))
            }
            Self::Database(error) => match error.as_db_error() {
                Some(error) => database_error(error),
                None => Outcome::retryable(StepError::new("database_unavailable", "the database is unavailable")),
            },
        }
    }
}

fn database_error(error: &DbError) -> Outcome {
    let state = error.code().code();
    let (code, transient) = error_code(state);
    let cause = shortened(error.message(), MAX_DATABASE_MESSAGE_BYTES);
    let mut message = match code {
        "timed_out" => "the write did not finish within the step's timeout".to_owned(),
        "lock_timeout" => "another session held a lock on the rows or the table for too long".to_owned(),
        _ => format!("the database rejected the write: {cause} ({state})"),
    };
    if code == "not_permitted" {
        message.push_str("; grant the right to the rule's role, or add a policy");
    }
    let details = json!({"sqlstate": state, "constraint": error.constraint(), "column": error.column()});
    let step_error = StepError::new(code, message).with_details(details);
    if transient { Outcome::retryable(step_error) } else { Outcome::failed(step_error) }
}

/// The code for a SQLSTATE (PostgreSQL, appendix A), and whether a retry may help.
fn error_code(state: &str) -> (&'static str, bool) {
    match state {
        "57014" => ("timed_out", true),
        "55P03" => ("lock_timeout", true),
        "40001" => ("serialization_failure", true),
        "40P01" => ("deadlock_detected", true),
        "23502" => ("not_null_violation", false),
        "23503" => ("foreign_key_violation", false),
        "23505" => ("unique_violation", false),
        "23514" => ("check_violation", false),
        "23P01" => ("exclusion_violation", false),
        "22001" => ("value_too_long", false),
        "22003" | "22008" => ("out_of_range", false),
        "22P02" | "22007" | "22P05" | "22021" => ("invalid_value", false),
        "42501" => ("not_permitted", false),
        "42703" => ("unknown_column", false),
        "42P01" | "3F000" => ("unknown_table", false),
        // Classes 08, 53 and 57: connection exception, insufficient resources, operator intervention.
        _ if ["08", "53", "57"].iter().any(|class| state.starts_with(class)) => ("database_unavailable", true),
        _ => ("database_refused", false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transient_database_errors_are_retryable() {
        for state in ["57014", "55P03", "40001", "40P01", "53300", "57P01", "08006"] {
            assert!(error_code(state).1, "{state}");
        }
        // Class 55 is more than locks: a retry does not help if an object is in the wrong state.
        for state in ["55000", "55006", "23505", "22003", "42501", "P0001", "XX000"] {
            assert!(!error_code(state).1, "{state}");
        }
    }
}
