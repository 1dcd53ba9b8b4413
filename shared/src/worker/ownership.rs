//! Whether an attempt still owns its step, for handlers, which never see the database.

use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio::time::{sleep, timeout};

use crate::db::Database;
use crate::db::step::{self, AttemptKey, Claimed};
use crate::telemetry;

/// Between two looks while a handler waits, and the longest that one may take: one round trip each.
const POLL: Duration = Duration::from_secs(2);

/// Tells a handler whether its attempt still owns the step. A cancel, the run's timeout or another attempt takes it away, and
/// from then on nothing that the handler does can count.
pub struct Ownership {
    poll: Duration,
    check: Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
}

impl Ownership {
    /// Asks `check`; while a handler waits, every `poll`.
    pub fn new(poll: Duration, check: impl Fn() -> BoxFuture<'static, bool> + Send + Sync + 'static) -> Self {
        Self { poll, check: Box::new(check) }
    }

    /// Of a step that nobody can take away.
    pub fn certain() -> Self {
        Self::new(Duration::MAX, || ready(true).boxed())
    }

    pub(super) fn of(db: &Database, claimed: &Claimed) -> Self {
        let (db, key) = (db.clone(), AttemptKey::of(claimed));
        Self::new(POLL, move || {
            let (db, key) = (db.clone(), key.clone());
            async move {
                // While the database is away nobody can take the step either.
                match timeout(POLL, step::attempt_is_live(&db, &key)).await {
                    Ok(Ok(live)) => live,
                    Ok(Err(error)) => {
                        telemetry::report(&error, "ask whether a step is still owned");
                        true
                    }
                    Err(_) => true,
                }
            }
            .boxed()
        })
    }

    /// Whether the step is still owned, as of now.
    pub async fn holds(&self) -> bool {
        (self.check)().await
    }

    /// Waits until the step is owned no longer; for ever, if that does not come.
    pub async fn lost(&self) {
        loop {
            sleep(self.poll).await;
            if !self.holds().await {
                return;
            }
        }
    }
}
