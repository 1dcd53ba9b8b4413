//! Accounts for requests to models: a start before each request reserves its money, an end after it settles it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio::time::sleep;

use super::Ownership;
use crate::db::Database;
use crate::db::model_call;
use crate::db::step::{AttemptKey, Claimed};
use crate::domain::{CachedAnswer, CallEnd, CallProgress, CallStart, Permit};
use crate::error::Error;
use crate::telemetry;

/// Delays between tries to record an end. If none succeeds, the sweeper charges the ceiling.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

type Start = dyn Fn(CallStart) -> BoxFuture<'static, Result<Permit, Error>> + Send + Sync;
type Cached = dyn Fn(String, u32) -> BoxFuture<'static, Result<Option<CachedAnswer>, Error>> + Send + Sync;
type Report = dyn Fn(CallProgress) -> BoxFuture<'static, Result<(), Error>> + Send + Sync;
type End = dyn Fn(CallEnd) -> BoxFuture<'static, Result<(), Error>> + Send + Sync;

/// What a handler needs to call models. One round trip before each request, one after it.
pub struct ModelCalls {
    ownership: Ownership,
    start: Box<Start>,
    end: Box<End>,
    cached: Box<Cached>,
    report: Box<Report>,
}

impl fmt::Debug for ModelCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelCalls").finish_non_exhaustive()
    }
}

impl ModelCalls {
    /// Model calls that these functions account for.
    pub fn new(
        ownership: Ownership,
        start: impl Fn(CallStart) -> BoxFuture<'static, Result<Permit, Error>> + Send + Sync + 'static,
        end: impl Fn(CallEnd) -> BoxFuture<'static, Result<(), Error>> + Send + Sync + 'static,
    ) -> Self {
        let cached = Box::new(|_, _| ready(Ok(None)).boxed());
        let report = Box::new(|_| ready(Ok(())).boxed());
        Self { ownership, start: Box::new(start), end: Box::new(end), cached, report }
    }

    /// The same, with answers of earlier calls: `cached` gets a key and the most age in seconds.
    #[must_use]
    pub fn with_cache(
        self,
        cached: impl Fn(String, u32) -> BoxFuture<'static, Result<Option<CachedAnswer>, Error>> + Send + Sync + 'static,
    ) -> Self {
        Self { cached: Box::new(cached), ..self }
    }

    /// The same, with somebody who watches streamed answers.
    #[must_use]
    pub fn with_progress(
        self,
        report: impl Fn(CallProgress) -> BoxFuture<'static, Result<(), Error>> + Send + Sync + 'static,
    ) -> Self {
        Self { report: Box::new(report), ..self }
    }

    /// Model calls that are always granted and never recorded, of a step that is never lost.
    pub fn unaccounted() -> Self {
        Self::new(Ownership::certain(), |_| ready(Ok(Permit::Granted)).boxed(), |_| ready(Ok(())).boxed())
    }

    /// Model calls of an attempt, accounted for in the database.
    pub(super) fn of(db: &Database, claimed: &Claimed) -> Self {
        let key = Arc::new(AttemptKey::of(claimed));
        let (start_db, start_key) = (db.clone(), key.clone());
        let (cache_db, tenant) = (db.clone(), claimed.tenant_id.clone());
        let (report_db, report_key) = (db.clone(), key.clone());
        let (end_db, end_key) = (db.clone(), key);
        Self::new(
            Ownership::of(db, claimed),
            move |call| {
                let (db, key) = (start_db.clone(), start_key.clone());
                async move { model_call::start(&db, &key, &call).await }.boxed()
            },
            move |end| {
                let (db, key) = (end_db.clone(), end_key.clone());
                async move { end_with_retries(&db, &key, end).await }.boxed()
            },
        )
        .with_cache(move |key, max_age_s| {
            let (db, tenant) = (cache_db.clone(), tenant.clone());
            async move { model_call::cached(&db, &tenant, &key, max_age_s).await }.boxed()
        })
        .with_progress(move |progress| {
            let (db, key) = (report_db.clone(), report_key.clone());
            async move { model_call::progress(&db, &key, &progress).await }.boxed()
        })
    }

    /// Asks whether a request may be sent, and reserves its money. Also the check whether the attempt owns its step. After
    /// an error no request may be sent.
    pub async fn start(&self, call: CallStart) -> Result<Permit, Error> {
        (self.start)(call).await
    }

    /// The newest answer to the question that `key` names, if it is no older than `max_age_s` seconds.
    pub async fn cached(&self, key: &str, max_age_s: u32) -> Result<Option<CachedAnswer>, Error> {
        (self.cached)(key.to_owned(), max_age_s).await
    }

    /// Says what a streamed answer has so far.
    pub async fn progress(&self, progress: CallProgress) -> Result<(), Error> {
        (self.report)(progress).await
    }

    /// Settles a request that was started. Also for an attempt that has lost its step: the money is spent anyway. Logs a
    /// failure.
    pub async fn end(&self, end: CallEnd) -> Result<(), Error> {
        (self.end)(end).await
    }

    /// Waits until the attempt no longer owns the step.
    pub async fn lost(&self) {
        self.ownership.lost().await;
    }

    /// For handlers that only check whether they own their step.
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }
}

async fn end_with_retries(db: &Database, key: &AttemptKey, end: CallEnd) -> Result<(), Error> {
    let mut delays = RETRY_DELAYS.iter();
    loop {
        let Err(error) = model_call::end(db, key, &end).await else { return Ok(()) };
        let Some(delay) = delays.next().filter(|_| matches!(error, Error::Unavailable { .. })) else {
            telemetry::report(&error, "settle a model call");
            return Err(error);
        };
        sleep(*delay).await;
    }
}
