//! Replacements for AWS: a context for each function's process, a channel for wake-ups, and event sources that form
//! batches as Lambda does.

use std::sync::Arc;

use anyhow::Result;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use shared::config::{Config, DatabaseConfig};
use shared::context::Ctx;
use shared::domain::TenantId;
use shared::queue::{Message, Queue, WakeUp};
use tokio::sync::{Mutex, mpsc};

/// Messages per invocation: the batch size of all handlers whose batch size is not 1.
pub const BATCH: usize = 10;

/// The receiving end of the queue. Its clones are the pollers of one event source.
#[derive(Clone)]
pub struct Source(Arc<Mutex<mpsc::UnboundedReceiver<WakeUp>>>);

/// A queue and its event source.
pub fn queue() -> (Queue, Source) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Queue::Channel(sender), Source(Arc::new(Mutex::new(receiver))))
}

impl Source {
    /// One receive call: waits for a message, and takes the others that are there, up to a batch.
    pub async fn receive(&self) -> Vec<WakeUp> {
        let mut receiver = self.0.lock().await;
        let mut batch = Vec::with_capacity(BATCH);
        receiver.recv_many(&mut batch, BATCH).await;
        batch
    }
}

/// Connections of one worker's process: the functions' default.
pub const WORKER_POOL: usize = 2;

/// The context of one function's process, or of several that share `pool_size` connections.
pub fn context(url: &str, queue: &Queue, pool_size: usize) -> Result<Ctx> {
    let sdk = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).region(Region::new("us-east-1")).build();
    let mut ctx = Ctx::new(config(url, pool_size), &sdk)?;
    ctx.queue = queue.clone();
    Ok(ctx)
}

/// The event of a batch.
pub fn event(batch: &[WakeUp]) -> Result<SqsEvent> {
    let mut event = SqsEvent::default();
    for (index, wakeup) in batch.iter().enumerate() {
        let mut message = SqsMessage::default();
        message.message_id = Some(format!("m{index}"));
        message.receipt_handle = Some(format!("r{index}"));
        message.body = Some(serde_json::to_string(&Message {
            tenant_id: wakeup.tenant_id.clone(),
            run_id: wakeup.run_id,
            step_id: wakeup.step_id,
            traceparent: wakeup.traceparent.clone(),
        })?);
        event.records.push(message);
    }
    Ok(event)
}

fn config(url: &str, pool_size: usize) -> Config {
    let database = DatabaseConfig { url: url.to_owned(), ca_file: None, pool_size };
    Config { tenant: TenantId("bench".into()), ..Config::new(database) }
}
