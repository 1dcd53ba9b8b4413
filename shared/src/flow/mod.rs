//! The operations of the control plane. Each calls one transition and sends its wake-ups after the commit.

pub mod check_plan;
pub mod control_run;
pub mod create_run;
pub mod decide_gate;
pub mod finish_step;
pub mod queues;
pub mod store_workspace;
pub mod sweep;

use tracing::warn;

use crate::queue::{Queue, WakeUp};

/// Sends wake-ups after a commit. A failure is only logged, because the sweeper sends what was not sent.
pub(crate) async fn wake(queue: &Queue, ready: Vec<WakeUp>) {
    if ready.is_empty() {
        return;
    }
    let count = ready.len();
    if let Err(error) = queue.send(ready).await {
        warn!(count, %error, "wake-ups were not sent; the sweeper will");
    }
}
