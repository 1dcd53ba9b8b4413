//! Cancel, pause, resume, retry.

use super::change_storage::deleted;
use super::wake;
use crate::context::Ctx;
use crate::db::Session;
use crate::db::run::{self, Control, Controlled};
use crate::domain::{RunId, RunStatus};
use crate::error::{Code, Error};
use crate::view::{Changed, RunChange};

/// Cancels, pauses, resumes or retries a run. A conflict names the state that forbids it, and changes nothing.
pub async fn control_run(
    ctx: &Ctx,
    session: &Session,
    id: RunId,
    control: Control,
    actor: &str,
) -> Result<RunChange, Error> {
    let (result, changes) = match run::run_control(session, id, control, actor).await? {
        Controlled::Cancelled(changes) => (Changed::Cancelled, changes),
        Controlled::Paused(changes) => (Changed::Paused, changes),
        Controlled::Resumed(changes) => (Changed::Resumed, changes),
        Controlled::Retried(changes) => (Changed::Retried, changes),
        Controlled::Unchanged(changes) => (Changed::Unchanged, changes),
        Controlled::Conflict { status } => return Err(conflict(control, status)),
        Controlled::Gone(gone) => return Err(deleted(gone.artifact_id, &gone.storage)),
        Controlled::NotFound => return Err(Error::NotFound(format!("run {id}"))),
    };
    wake(&ctx.queue, changes.ready).await;
    Ok(RunChange {
        id,
        status: changes.status,
        result,
        stopped: changes.stopped,
        was_running: changes.was_running,
        still_running: changes.still_running,
        generation: changes.generation,
    })
}

fn conflict(control: Control, status: RunStatus) -> Error {
    let (code, detail) = match control {
        Control::Retry => {
            (Code::RunNotRetryable, format!("only a failed or cancelled run can be retried; this one is {status}"))
        }
        Control::Pause | Control::Resume | Control::Cancel => {
            (Code::RunFinished, format!("the run has already ended as {status}"))
        }
    };
    Error::Conflict(code, detail)
}
