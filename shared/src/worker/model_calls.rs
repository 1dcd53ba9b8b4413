//! Accounts for requests to models: a start before each request reserves its money, an end after it settles it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio::time::{Instant, sleep};

use super::Ownership;
use crate::context::Ctx;
use crate::db::model_call;
use crate::db::step::{AttemptKey, Claimed};
use crate::domain::{CachedAnswer, CallEnd, CallProgress, CallStart, Permit};
use crate::error::Error;
use crate::flow::wake;
use crate::telemetry;

/// The delay before a start or an end is tried again while the database does not answer. It doubles each time.
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// So often it is tried even if the attempt has no time left.
const MIN_TRIES: u32 = 3;

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

    /// Model calls of an attempt, accounted for in the database. While that does not answer, they are tried again until `deadline`.
    pub(super) fn of(ctx: &Ctx, claimed: &Claimed, deadline: Instant) -> Self {
        let db = &ctx.db;
        let queue = ctx.queue.clone();
        let key = Arc::new(AttemptKey::of(claimed));
        let (start_db, start_key) = (db.clone(), key.clone());
        let (cache_db, tenant) = (db.clone(), claimed.tenant_id.clone());
        let (report_db, report_key) = (db.clone(), key.clone());
        let (end_db, end_key) = (db.clone(), key);
        Self::new(
            Ownership::of(db, claimed),
            move |call| {
                let (db, key) = (start_db.clone(), start_key.clone());
                // A permit that comes later would be of a request that is settled already.
                let deadline = deadline.min(Instant::now() + Duration::from_millis(call.limit_ms));
                async move { with_retries(deadline, || model_call::start(&db, &key, &call)).await }.boxed()
            },
            move |end| {
                let (db, key, queue) = (end_db.clone(), end_key.clone(), queue.clone());
                async move {
                    let ended = with_retries(deadline, || model_call::end(&db, &key, &end)).await;
                    let ended = ended.inspect_err(|error| telemetry::report(error, "settle a model call"))?;
                    wake(&queue, ended.ready).await;
                    Ok(())
                }
                .boxed()
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

/// Both are safe to repeat. A cost that is known must not get lost: without an end the sweeper charges the ceiling.
async fn with_retries<T, F>(deadline: Instant, call: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let (mut delay, mut tries) = (FIRST_DELAY, 1);
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let may_wait = tries < MIN_TRIES || Instant::now() + delay < deadline;
        if !may_wait || !matches!(error, Error::Unavailable { .. }) {
            return Err(error);
        }
        tracing::warn!(%error, tries, "the database does not answer about a model call");
        sleep(delay).await;
        (delay, tries) = ((delay * 2).min(LONGEST_DELAY), tries + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    async fn tries(time_left: Duration, failures: u32) -> (u32, bool) {
        let count = AtomicU32::new(0);
        let answer = with_retries(Instant::now() + time_left, || {
            let tries = count.fetch_add(1, Ordering::SeqCst) + 1;
            let failed = || Error::unavailable("the database", std::io::Error::other("it restarts"));
            ready(if tries > failures { Ok(()) } else { Err(failed()) })
        });
        let is_ok = answer.await.is_ok();
        (count.into_inner(), is_ok)
    }

    #[tokio::test]
    async fn a_known_cost_outlives_an_outage_as_long_as_the_attempt_has_time() {
        let (none, some) = (Duration::ZERO, Duration::from_secs(2));
        let all = [(none, 2), (none, 3), (some, 3), (some, u32::MAX)];
        let ends = futures::future::join_all(all.map(|(left, failures)| tries(left, failures))).await;
        assert_eq!(ends, [(3, true), (3, false), (4, true), (4, false)]);
    }
}
