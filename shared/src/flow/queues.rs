//! Queues of handlers: how full they are, what is in their dead-letter queues, and how dead letters go back.

use futures::future;
use tracing::info;
use uuid::Uuid;

use crate::context::Ctx;
use crate::db::redrive::{Redrive, redrive_record};
use crate::db::{Session, step_view};
use crate::domain::bounds::shortened;
use crate::domain::tool::{HANDLERS, HandlerSpec, LONG_GATES};
use crate::domain::{StepId, StepStatus, TenantId};
use crate::error::Error;
use crate::queue::{self, Message, Moved};
use crate::view::{DeadLetter, DeadLetterStep, QueueDepth, QueueDetail, QueueList, Redriven};

/// Length of a message that is shown.
const BODY_BYTES: usize = 2_000;

/// The queues of every handler.
pub async fn queue_list(ctx: &Ctx, session: &Session) -> Result<QueueList, Error> {
    at_home(ctx, session).await?;
    let long = ctx.config.limits.long_gates.then_some(&LONG_GATES);
    let queues = HANDLERS.iter().chain(long).map(|handler| depth(ctx, handler.name));
    Ok(QueueList { queues: future::try_join_all(queues).await? })
}

/// The queues of a handler, with some of its dead letters.
pub async fn queue_fetch(ctx: &Ctx, session: &Session, handler: &str) -> Result<QueueDetail, Error> {
    at_home(ctx, session).await?;
    let depth = depth(ctx, handler_named(ctx, handler)?.name).await?;
    let messages = if depth.dead_letters == 0 { Vec::new() } else { dead_letters(ctx, session, handler).await? };
    Ok(QueueDetail { depth, messages })
}

/// Some dead letters of a handler, with what is known about each.
pub async fn dead_letters(ctx: &Ctx, session: &Session, handler: &str) -> Result<Vec<DeadLetter>, Error> {
    at_home(ctx, session).await?;
    let letters = ctx.queue.dead_letters(handler_named(ctx, handler)?.name).await?;
    let wakeups: Vec<Option<Message>> = letters.iter().map(|letter| serde_json::from_str(&letter.body).ok()).collect();
    let ids: Vec<StepId> = wakeups.iter().flatten().map(|message| message.step_id).collect();
    let steps = step_view::steps_of_letters(session, &ids).await?;
    let described = letters.into_iter().zip(wakeups).map(|(letter, wakeup)| {
        let step = wakeup.as_ref().and_then(|message| steps.iter().find(|step| step.id == message.step_id)).cloned();
        described(session.tenant(), letter, wakeup.as_ref(), step)
    });
    Ok(described.collect())
}

/// Moves dead letters of a handler back to its queue, and records who did and how many. `id` names the record.
pub async fn redrive(ctx: &Ctx, session: &Session, id: Uuid, handler: &str, actor: &str) -> Result<Redriven, Error> {
    at_home(ctx, session).await?;
    let handler = handler_named(ctx, handler)?.name;
    let Moved { count: moved, more, failure } = ctx.queue.redrive(handler).await;
    info!(handler, actor, moved, more, "redrove dead letters");
    match failure {
        // Nothing has moved, so there is nothing to record.
        Some(error @ Error::Unavailable { maybe_done: false, .. }) if moved == 0 => return Err(error),
        _ => {}
    }
    let redrive = Redrive { id, handler, actor, moved, more };
    redrive_record(session, &redrive).await.map_err(|error| Error::unanswered("the database", error))?;
    match failure {
        None => Ok(Redriven { handler: handler.to_owned(), moved, more }),
        Some(error) => Err(Error::unanswered("SQS", error)),
    }
}

/// Queues hold the wake-ups of all tenants, so only the deployment's own tenant sees them. This admits the caller before anything
/// is read from a queue or moved.
async fn at_home(ctx: &Ctx, session: &Session) -> Result<(), Error> {
    session.principal().await?;
    let is_home = *session.tenant() == ctx.config.tenant;
    if is_home { Ok(()) } else { Err(Error::NotFound("this path".into())) }
}

/// The handler of this name.
pub fn handler_named(ctx: &Ctx, name: &str) -> Result<&'static HandlerSpec, Error> {
    let long = ctx.config.limits.long_gates.then_some(&LONG_GATES);
    let found = HANDLERS.iter().chain(long).find(|handler| handler.name == name);
    found.ok_or_else(|| Error::NotFound(format!("a queue of the handler {}", shortened(name, 80))))
}

async fn depth(ctx: &Ctx, handler: &str) -> Result<QueueDepth, Error> {
    let queue::Depth { waiting, in_flight, delayed, dead_letters } = ctx.queue.depth(handler).await?;
    Ok(QueueDepth { handler: handler.to_owned(), waiting, in_flight, delayed, dead_letters })
}

fn described(
    tenant: &TenantId,
    letter: queue::DeadLetter,
    wakeup: Option<&Message>,
    step: Option<DeadLetterStep>,
) -> DeadLetter {
    let is_ours = wakeup.is_none_or(|message| message.tenant_id == *tenant);
    let reason = match (wakeup, &step) {
        (None, _) => "It is not a wake-up.".to_owned(),
        (Some(_), _) if !is_ours => "It is a wake-up of another tenant.".to_owned(),
        (Some(_), None) => "It is a wake-up of a step that does not exist.".to_owned(),
        (Some(_), Some(step)) => reason(step.status).to_owned(),
    };
    DeadLetter {
        id: letter.id,
        sent_at: letter.sent_at,
        reason,
        step: step.filter(|_| is_ours),
        body: is_ours.then(|| shortened(&letter.body, BODY_BYTES)),
    }
}

/// What the wake-up of a step in this state does.
fn reason(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Ready => "Its step is ready: no worker could claim it, or the wake-up came before a retry was due.",
        StepStatus::Running => "Its step is running: another wake-up reached a worker. This one does nothing.",
        StepStatus::Pending | StepStatus::Blocked => {
            "Its step waits. The wake-up does nothing until the step is ready."
        }
        StepStatus::Succeeded | StepStatus::Failed | StepStatus::Skipped | StepStatus::Cancelled => {
            "Its step has ended. The wake-up does nothing any more."
        }
    }
}
