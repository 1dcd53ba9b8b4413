//! The verbs: each is one transition of the database and, after its commit, the wake-ups that it owes.

pub mod check_plan;
pub mod control_run;
pub mod create_run;
pub mod decide_gate;
pub mod finish_step;
pub mod sweep;

use tracing::warn;

use crate::queue::{Queue, WakeUp};

/// Sends wake-ups after a commit. What cannot be sent is owed: the sweeper sends it, so this is no failure of the verb.
pub(crate) async fn wake(queue: &Queue, ready: Vec<WakeUp>) {
    if ready.is_empty() {
        return;
    }
    let count = ready.len();
    if let Err(error) = queue.send(ready).await {
        warn!(count, %error, "wake-ups were not sent; the sweeper will");
    }
}
