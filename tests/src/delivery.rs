//! Deliveries under the test's control. They replace the queue and Lambda's event source.

use std::collections::{BTreeMap, HashSet};

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use shared::context::Ctx;
use shared::domain::tool;
use shared::queue::{Message, WakeUp};
use shared::worker::{WorkThenRecord, Worker};

use crate::{Lab, Script};

/// How often a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deliver {
    Once,
    /// Twice in one batch, and again after the batch.
    Thrice,
}

/// More batches than any plan of the tests needs. A run that never ends exceeds it.
const MAX_BATCHES: usize = 2_000;

impl Lab {
    /// A worker of this handler.
    pub fn worker(&self, handler: &str, script: &Script) -> Worker<WorkThenRecord<Script>> {
        worker_on(&self.ctx, handler, script)
    }

    /// Takes the wake-ups that were sent and not yet delivered.
    pub async fn sent(&self) -> Vec<WakeUp> {
        let mut wakeups = self.wakeups.lock().await;
        let mut sent = Vec::new();
        while let Ok(wakeup) = wakeups.try_recv() {
            sent.push(wakeup);
        }
        sent
    }

    /// Delivers wake-ups, including those that the deliveries cause, until none is left. Ends the delay of delayed
    /// ones.
    pub async fn settle(&self, script: &Script, deliver: Deliver) {
        self.settle_on(&self.ctx, script, deliver).await;
    }

    /// Like [`Lab::settle`], with workers of another context.
    pub async fn settle_on(&self, ctx: &Ctx, script: &Script, deliver: Deliver) {
        for _ in 0..MAX_BATCHES {
            let sent = self.sent().await;
            if sent.is_empty() {
                return;
            }
            for wakeup in sent.iter().filter(|wakeup| wakeup.delay_ms > 0) {
                self.delay_over(wakeup.step_id).await;
            }
            let mut by_handler: BTreeMap<&str, Vec<WakeUp>> = BTreeMap::new();
            for wakeup in &sent {
                by_handler.entry(&wakeup.handler).or_default().push(wakeup.clone());
            }
            for (handler, wakeups) in by_handler {
                let spec = tool::handler(handler).expect("a known handler");
                let worker = worker_on(ctx, handler, script);
                for batch in wakeups.chunks(spec.batch_size as usize) {
                    deliver_batch(&worker, batch, deliver).await;
                }
            }
        }
        panic!("the run never ends");
    }
}

async fn deliver_batch(worker: &Worker<WorkThenRecord<Script>>, batch: &[WakeUp], deliver: Deliver) {
    let response = worker.handle_batch(event(batch, deliver), None).await;
    assert_eq!(failed_ids(&response), HashSet::new(), "a batch without errors returns no message");
    if deliver == Deliver::Thrice {
        let again = worker.handle_batch(event(batch, Deliver::Once), None).await;
        assert_eq!(failed_ids(&again), HashSet::new(), "a repeated message is acknowledged");
    }
}

/// A worker of this handler with another context.
pub fn worker_on(ctx: &Ctx, handler: &str, script: &Script) -> Worker<WorkThenRecord<Script>> {
    let spec = tool::handler(handler).expect("a known handler");
    Worker::new(ctx.clone(), spec, WorkThenRecord(script.clone()))
}

/// The SQS event of a batch. Message ids are `m0`, `m1`, ... in the order of the batch.
pub fn event(batch: &[WakeUp], deliver: Deliver) -> SqsEvent {
    let copies = if deliver == Deliver::Once { 1 } else { 2 };
    let bodies = batch.iter().flat_map(|wakeup| std::iter::repeat_n(body(wakeup), copies));
    event_of(bodies)
}

/// The SQS event of these message bodies.
pub fn event_of(bodies: impl IntoIterator<Item = String>) -> SqsEvent {
    let mut event = SqsEvent::default();
    event.records = bodies
        .into_iter()
        .enumerate()
        .map(|(index, body)| {
            let mut message = SqsMessage::default();
            message.message_id = Some(format!("m{index}"));
            message.receipt_handle = Some(format!("r{index}"));
            message.body = Some(body);
            message
        })
        .collect();
    event
}

/// The SQS message body of a wake-up.
pub fn body(wakeup: &WakeUp) -> String {
    let message = Message {
        tenant_id: wakeup.tenant_id.clone(),
        run_id: wakeup.run_id,
        step_id: wakeup.step_id,
        traceparent: wakeup.traceparent.clone(),
    };
    serde_json::to_string(&message).expect("a message is JSON")
}

/// Ids of the messages that the batch returns to the queue.
pub fn failed_ids(response: &SqsBatchResponse) -> HashSet<String> {
    response.batch_item_failures.iter().map(|failure| failure.item_identifier.clone()).collect()
}
