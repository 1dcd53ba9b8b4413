//! Requests to models: start and end.

use serde::{Deserialize, Serialize};

use super::pool::Database;
use super::step::AttemptKey;
use crate::domain::{CallEnd, CallStart, Permit};
use crate::error::Error;

#[derive(Debug, Serialize)]
struct Call<'a, T> {
    #[serde(flatten)]
    attempt: &'a AttemptKey,
    #[serde(flatten)]
    of: &'a T,
}

/// How an end counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    Settled,
    /// A known cost has replaced a ceiling.
    Corrected,
    /// The same end was recorded before.
    Repeated,
    /// The attempt never started such a call.
    Unknown,
}

#[derive(Debug, Deserialize)]
struct Answer {
    result: Settled,
}

/// Reserves the money of a request. Safe to repeat.
pub async fn start(db: &Database, attempt: &AttemptKey, call: &CallStart) -> Result<Permit, Error> {
    db.transition("select nofx.llm_call_start($1)", &Call { attempt, of: call }).await
}

/// Settles a request. Safe to repeat.
pub async fn end(db: &Database, attempt: &AttemptKey, end: &CallEnd) -> Result<Settled, Error> {
    let answer: Answer = db.transition("select nofx.llm_call_end($1)", &Call { attempt, of: end }).await?;
    Ok(answer.result)
}
