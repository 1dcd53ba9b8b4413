//! Deletes what attempts stored that then failed, were cancelled, or lost their worker: objects that no artifact names. Only
//! the sweeper does, hours later, when no worker of the attempt can write any more.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use tracing::info;

use crate::context::Ctx;
use crate::db::leftover::{self, Leftover};
use crate::error::Error;
use crate::telemetry;

/// Attempts that are taken at once, and how many of their objects are deleted concurrently.
const TAKEN: i32 = 5;
const CONCURRENT: usize = 8;
/// After this time no further attempts are taken. The next invocation does the rest.
const TIME: Duration = Duration::from_secs(5);

/// Clears the folders of attempts that are due. Returns the number of deleted objects. If one attempt fails, the others are
/// still done. Logs each failure and returns the last one.
pub async fn clear_leftovers(ctx: &Ctx) -> Result<u64, Error> {
    let (start, mut deleted, mut failure) = (Instant::now(), 0, None);
    loop {
        let taken = leftover::leftovers_take(&ctx.db, TAKEN).await?;
        for attempt in &taken {
            match clear(ctx, attempt).await {
                Ok(objects) => deleted += objects,
                Err(error) => {
                    telemetry::report(&error, "clear the folder of an attempt");
                    failure = Some(error);
                }
            }
        }
        if taken.len() < usize::try_from(TAKEN).unwrap_or_default() || start.elapsed() > TIME {
            break;
        }
    }
    if deleted > 0 {
        info!(deleted, "deleted objects that no artifact names");
    }
    failure.map_or(Ok(deleted), Err)
}

async fn clear(ctx: &Ctx, attempt: &Leftover) -> Result<u64, Error> {
    let Leftover { tenant_id, run_id, step_id, .. } = attempt;
    let objects = ctx.storage.attempt_objects((tenant_id, *run_id, *step_id), attempt.attempt).await?;
    let unnamed: Vec<_> = objects.iter().filter(|uri| !attempt.named.contains(*uri)).collect();
    let deletions = stream::iter(&unnamed).map(|uri| ctx.storage.delete(uri)).buffer_unordered(CONCURRENT);
    deletions.try_collect::<()>().await?;
    leftover::leftover_forget(&ctx.db, attempt).await?;
    Ok(unnamed.len() as u64)
}
