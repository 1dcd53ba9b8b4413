//! Archives, restores and deletes the bytes of artifacts, as policies and people want it. Only the sweeper does.
//!
//! The database says what is wanted, the storage what is there. Each request to the storage may be repeated, and nothing is
//! recorded before the storage shows it. So a crash at any point loses nothing: the next sweep looks again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::{StreamExt, stream};
use serde::Serialize;
use tracing::{error, info, warn};

use crate::context::Ctx;
use crate::db::artifact_storage::{self, Taken};
use crate::domain::TenantId;
use crate::domain::artifact_storage::{Act, COLD, Decision, HOT, RestoreTier, Seen, Settled, StorageState, decide};
use crate::error::Error;
use crate::telemetry;

/// Artifacts of a tenant that one turn looks at.
const WINDOW: u32 = 200;
/// Turns of one sweep.
const TURNS: i32 = 20;
/// Tenants of one sweep whose artifacts are due.
const TENANTS: i32 = 100;
/// Artifacts of a tenant that are taken at once, and how many of them are looked at concurrently.
const TAKEN: u32 = 100;
const CONCURRENT: usize = 8;
/// After this time no further artifacts are taken. The next invocation does the rest.
const TIME: Duration = Duration::from_secs(10);
/// Requests about one artifact in a sweep. More than any state needs.
const MAX_REQUESTS: usize = 4;

/// What a sweep did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Artifacts that policies wanted archived or deleted since the last sweep.
    pub wanted: u64,
    /// Artifacts that are now archived, can be read again, or are deleted.
    pub archived: u64,
    pub restored: u64,
    pub deleted: u64,
}

/// Finds what policies want, and does what is wanted. If one artifact or one tenant fails, the others are still done. Logs
/// each failure and returns the last one.
pub async fn keep_artifacts(ctx: &Ctx) -> Result<Kept, Error> {
    let (mut kept, mut failures) = (Kept::default(), Failures::default());
    if let Err(error) = plan(ctx, &mut kept, &mut failures).await {
        failures.note("give tenants their turn", error);
    }
    if let Err(error) = work(ctx, &mut kept, &mut failures).await {
        failures.note("find artifacts that are due", error);
    }
    if kept != Kept::default() {
        info!(?kept, "kept artifacts");
    }
    failures.last.map_or(Ok(kept), Err)
}

#[derive(Default)]
struct Failures {
    last: Option<Error>,
    /// Whose turn failed. They get no other one in this sweep.
    tenants: BTreeSet<TenantId>,
}

impl Failures {
    fn note(&mut self, what: &str, error: Error) {
        telemetry::report(&error, what);
        self.last = Some(error);
    }
}

/// Marks what policies want archived or deleted.
async fn plan(ctx: &Ctx, kept: &mut Kept, failures: &mut Failures) -> Result<(), Error> {
    let can_archive = ctx.config.artifacts.can_archive();
    let mut left = TURNS;
    while left > 0 {
        let mut tenants = artifact_storage::artifact_turns(&ctx.db, left).await?;
        tenants.retain(|tenant| !failures.tenants.contains(tenant));
        if tenants.is_empty() {
            break;
        }
        for tenant in tenants {
            left -= 1;
            match artifact_storage::artifacts_plan(&ctx.db, &tenant, WINDOW, can_archive).await {
                Ok(Some(planned)) => {
                    if let Some(version) = planned.unreadable {
                        error!(tenant_id = %tenant, version, "the policy's part `artifacts` cannot be read: nothing is archived or deleted");
                    }
                    kept.wanted += planned.archived + planned.deleted;
                }
                Ok(None) => {}
                Err(error) => {
                    failures.note("look at the artifacts of a tenant", error);
                    failures.tenants.insert(tenant);
                }
            }
        }
    }
    Ok(())
}

/// Does what is wanted, a batch of each tenant at a time.
async fn work(ctx: &Ctx, kept: &mut Kept, failures: &mut Failures) -> Result<(), Error> {
    let start = Instant::now();
    let mut tenants = artifact_storage::artifacts_due(&ctx.db, TENANTS).await?;
    while !tenants.is_empty() {
        let mut unfinished = Vec::new();
        for tenant in tenants {
            if start.elapsed() > TIME {
                return Ok(());
            }
            match artifact_storage::artifacts_take(&ctx.db, &tenant, TAKEN).await {
                Ok(taken) => {
                    let results = stream::iter(&taken).map(|taken| keep(ctx, taken)).buffer_unordered(CONCURRENT);
                    results.collect::<Vec<_>>().await.into_iter().for_each(|result| count(result, kept, failures));
                    if taken.len() >= usize::try_from(TAKEN).unwrap_or_default() {
                        unfinished.push(tenant);
                    }
                }
                Err(error) => failures.note("take the artifacts of a tenant", error),
            }
        }
        tenants = unfinished;
    }
    Ok(())
}

fn count(result: Result<Option<StorageState>, Error>, kept: &mut Kept, failures: &mut Failures) {
    match result {
        Ok(Some(StorageState::Archived)) => kept.archived += 1,
        Ok(Some(StorageState::Restored)) => kept.restored += 1,
        Ok(Some(StorageState::Deleted)) => kept.deleted += 1,
        Ok(_) => {}
        Err(error) => failures.note("keep an artifact", error),
    }
}

/// Brings one artifact to where it is wanted, as far as the storage does that at once. Returns its state, if that changed.
async fn keep(ctx: &Ctx, taken: &Taken) -> Result<Option<StorageState>, Error> {
    let settled = match settle(ctx, taken).await {
        Ok(settled) => settled,
        Err(error) => {
            artifact_storage::artifact_failed(&ctx.db, taken, &error.to_string()).await?;
            return Err(error);
        }
    };
    let is_recorded = artifact_storage::artifact_record(&ctx.db, taken, &settled).await?;
    Ok(Some(settled.state).filter(|state| is_recorded && *state != taken.wanted().state))
}

async fn settle(ctx: &Ctx, taken: &Taken) -> Result<Settled, Error> {
    let wanted = taken.wanted();
    if wanted.state == StorageState::Deleting && taken.is_shared {
        let (state, restored_until_s) = (StorageState::Deleted, None);
        return Ok(Settled { state, restored_until_s, again_in: None, problem: None });
    }
    let mut done = None;
    for _ in 0..MAX_REQUESTS {
        let seen = ctx.storage.look(&taken.uri).await?;
        match decide(&wanted, seen, done, now_s()) {
            Decision::Settle(settled) => {
                if settled.problem.is_some() {
                    warn!(artifact = %taken.artifact_id, state = wanted.state.as_str(), "an object is missing");
                }
                return Ok(settled);
            }
            Decision::Do(act) => {
                perform(ctx, taken, act, seen).await?;
                done = Some(act);
            }
        }
    }
    Err(Error::internal("keep an artifact", "the storage never settles"))
}

async fn perform(ctx: &Ctx, taken: &Taken, act: Act, seen: Seen) -> Result<(), Error> {
    info!(artifact = %taken.artifact_id, tenant_id = %taken.tenant_id, ?act, ?seen, "ask the storage");
    match act {
        Act::TagCold => ctx.storage.tag(&taken.uri, COLD).await.map(|_| ()),
        Act::TagHot => ctx.storage.tag(&taken.uri, HOT).await.map(|_| ()),
        Act::Restore => {
            let tier = taken.tier.unwrap_or(RestoreTier::Standard);
            ctx.storage.restore(&taken.uri, taken.wanted().asked_days.unwrap_or(1), tier).await
        }
        Act::Delete => ctx.storage.delete(&taken.uri).await,
    }
}

/// Seconds since 1970.
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
