//! The operations of the control plane. Each calls one transition and sends its wake-ups after the commit.

pub mod attest_decision;
pub mod change_storage;
pub mod check_plan;
pub mod clear_leftovers;
pub mod control_run;
pub mod create_run;
pub mod decide_gate;
pub mod finish_step;
pub mod keep_artifacts;
pub mod link_gate;
pub mod queues;
pub mod seal_runs;
mod sealed_before;
pub mod store_workspace;
pub mod sweep;

use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use crate::queue::{Queue, WakeUp};

/// Longest wait for the queues. The change is committed, so its caller must not wait for a queue that hangs.
const WAKE_LIMIT: Duration = Duration::from_secs(5);

/// Sends wake-ups after a commit. A failure is only logged, because the sweeper sends what was not sent.
pub(crate) async fn wake(queue: &Queue, ready: Vec<WakeUp>) {
    if ready.is_empty() {
        return;
    }
    let count = ready.len();
    match timeout(WAKE_LIMIT, queue.send(ready)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(count, %error, "wake-ups were not sent; the sweeper will"),
        Err(_) => warn!(count, "the queues do not answer; the sweeper sends wake-ups that were not sent"),
    }
}
