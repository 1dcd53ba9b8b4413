//! Serves a handler's queue without Lambda: polls it, works on one message at a time, and deletes it. For work that
//! takes longer than Lambda allows, or needs another machine.

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use tokio::time::{Duration, sleep};
use tracing::{info, warn};

use super::execute::Executor;
use super::{Ctx, Worker};
use crate::domain::tool;
use crate::error::Error;
use crate::queue::Received;

/// Pause after a failed call, so that an outage does not fill the log.
const PAUSE: Duration = Duration::from_secs(5);

/// A message that could not be handled becomes visible again after this time, not after the queue's visibility timeout.
const RELEASE_AFTER_S: i32 = 5;

/// Polls until `stop` ends. A step in work is finished first, and no further one is started.
pub async fn poll<E: Executor>(
    handler: &str,
    ctx: Ctx,
    executor: E,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let spec = tool::handler(handler).ok_or_else(|| Error::internal("poll", format!("no handler {handler:?}")))?;
    let worker = Worker::new(ctx.clone(), spec, executor).without_continuation();
    tokio::pin!(stop);
    info!(handler, "polling");
    loop {
        let received = tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            received = ctx.queue.receive(handler) => received,
        };
        match received {
            Ok(Some(message)) => work(&worker, &ctx, handler, message).await,
            Ok(None) => {}
            Err(error) => {
                warn!(%error, "cannot receive messages");
                tokio::select! {
                    () = &mut stop => return Ok(()),
                    () = sleep(PAUSE) => {}
                }
            }
        }
    }
}

async fn work<E: Executor>(worker: &Worker<E>, ctx: &Ctx, handler: &str, message: Received) {
    let mut record = SqsMessage::default();
    record.message_id = Some(message.id);
    record.receipt_handle = Some(message.receipt_handle.clone());
    record.body = Some(message.body);
    let mut event = SqsEvent::default();
    event.records = vec![record];
    let response = worker.handle_batch(event, None).await;
    let receipt = &message.receipt_handle;
    if !response.batch_item_failures.is_empty() {
        if let Err(error) = ctx.queue.release(handler, receipt, RELEASE_AFTER_S).await {
            warn!(%error, "the message returns only after its visibility timeout");
        }
    } else if let Err(error) = ctx.queue.delete(handler, receipt).await {
        warn!(%error, "a finished message could not be deleted; its next delivery finds nothing to claim");
    }
}
