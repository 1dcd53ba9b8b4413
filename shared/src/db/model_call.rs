//! Requests to models: start and end.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::pool::Database;
use super::step::AttemptKey;
use crate::domain::{CachedAnswer, CallEnd, CallProgress, CallStart, Permit, TenantId, WakeUp};
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

/// The answer to an end.
#[derive(Debug, Deserialize)]
pub struct Ended {
    pub result: Settled,
    /// Steps that waited for the money and go on.
    #[serde(default)]
    pub ready: Vec<WakeUp>,
}

#[derive(Debug, Serialize)]
struct Question<'a> {
    tenant_id: &'a TenantId,
    key: &'a str,
    max_age_s: u32,
}

#[derive(Debug, Deserialize)]
struct Found {
    found: Option<CachedAnswer>,
}

/// The newest answer that was stored with this key of the cache, if it is no older than `max_age_s`.
pub async fn cached(
    db: &Database,
    tenant_id: &TenantId,
    key: &str,
    max_age_s: u32,
) -> Result<Option<CachedAnswer>, Error> {
    let question = Question { tenant_id, key, max_age_s };
    let Found { found } = db.transition("select nofx.llm_cached($1)", &question).await?;
    Ok(found)
}

/// Reserves the money of a request. Safe to repeat.
pub async fn start(db: &Database, attempt: &AttemptKey, call: &CallStart) -> Result<Permit, Error> {
    db.transition("select nofx.llm_call_start($1)", &Call { attempt, of: call }).await
}

/// Records what a streamed answer has so far, while its request is open.
pub async fn progress(db: &Database, attempt: &AttemptKey, progress: &CallProgress) -> Result<(), Error> {
    let _: IgnoredAny = db.transition("select nofx.llm_call_progress($1)", &Call { attempt, of: progress }).await?;
    Ok(())
}

/// Settles a request. Safe to repeat.
pub async fn end(db: &Database, attempt: &AttemptKey, end: &CallEnd) -> Result<Ended, Error> {
    db.transition("select nofx.llm_call_end($1)", &Call { attempt, of: end }).await
}
