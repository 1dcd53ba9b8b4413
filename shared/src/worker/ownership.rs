//! Tells handlers whether an attempt still owns its step.

use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio::time::{sleep, timeout};

use crate::db::Database;
use crate::db::step::{self, AttemptKey, Claimed};
use crate::telemetry;

/// Time between two checks while a handler waits, and the longest time for a check. Each check is one round trip.
const POLL: Duration = Duration::from_secs(2);

/// Tells a handler whether its attempt still owns the step. The attempt loses it by a cancel, the run's timeout or a
/// newer attempt. From then on its results do not count.
pub struct Ownership {
    poll: Duration,
    check: Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
}

impl Ownership {
    /// Calls `check`, and calls it again every `poll` while a handler waits.
    pub fn new(poll: Duration, check: impl Fn() -> BoxFuture<'static, bool> + Send + Sync + 'static) -> Self {
        Self { poll, check: Box::new(check) }
    }

    /// Ownership that cannot be lost.
    pub fn certain() -> Self {
        Self::new(Duration::MAX, || ready(true).boxed())
    }

    pub(super) fn of(db: &Database, claimed: &Claimed) -> Self {
        let (db, key) = (db.clone(), AttemptKey::of(claimed));
        Self::new(POLL, move || {
            let (db, key) = (db.clone(), key.clone());
            async move {
                // While the database is unavailable, nobody else can claim the step.
                match timeout(POLL, step::attempt_is_live(&db, &key)).await {
                    Ok(Ok(live)) => live,
                    Ok(Err(error)) => {
                        telemetry::report(&error, "check whether a step is still owned");
                        true
                    }
                    Err(_) => true,
                }
            }
            .boxed()
        })
    }

    /// Whether the attempt owns the step now.
    pub async fn holds(&self) -> bool {
        (self.check)().await
    }

    /// Waits until the attempt no longer owns the step.
    pub async fn lost(&self) {
        loop {
            sleep(self.poll).await;
            if !self.holds().await {
                return;
            }
        }
    }
}
