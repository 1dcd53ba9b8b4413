//! Stand-ins for SQS and Lambda: a channel for wake-ups, event sources that form batches as Lambda does, and a context
//! for each function's process.

use std::sync::Arc;

use anyhow::Result;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use shared::config::{AuthConfig, AuthMode, Config, DatabaseConfig, Platform};
use shared::context::Ctx;
use shared::db::Session;
use shared::domain::TenantId;
use shared::domain::principal::{Caller, Permission};
use shared::queue::{Message, Queue, WakeUp};
use tokio::sync::{Mutex, mpsc};

/// Messages per invocation: the batch size of all handlers whose batch size is not 1.
pub const BATCH_SIZE: usize = 10;

/// The receiving end of the queue. Its clones are pollers of one event source.
#[derive(Clone)]
pub struct EventSource(Arc<Mutex<mpsc::UnboundedReceiver<WakeUp>>>);

/// Creates a queue and its event source.
pub fn queue() -> (Queue, EventSource) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Queue::Channel(sender), EventSource(Arc::new(Mutex::new(receiver))))
}

impl EventSource {
    /// One receive call: waits for a message, then takes up to a batch of those available.
    pub async fn receive(&self) -> Vec<WakeUp> {
        let mut receiver = self.0.lock().await;
        let mut batch = Vec::with_capacity(BATCH_SIZE);
        receiver.recv_many(&mut batch, BATCH_SIZE).await;
        batch
    }
}

/// The tenant of the benchmarks.
pub const TENANT: &str = "bench";

/// Connections of one worker's process: the functions' default.
pub const WORKER_POOL_SIZE: usize = 2;

/// The context of one function's process, or of several that share `pool_size` connections.
pub fn context(url: &str, queue: &Queue, pool_size: usize) -> Result<Ctx> {
    let sdk = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).region(Region::new("us-east-1")).build();
    let mut ctx = Ctx::new(config(url, pool_size), &sdk)?;
    ctx.queue = queue.clone();
    Ok(ctx)
}

/// The SQS event of a batch.
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
    let endpoint = Some("http://127.0.0.1".to_owned());
    let platform = Platform { aws_variable: None, aws_endpoint_url: endpoint };
    let auth = Arc::new(AuthConfig { mode: Some(AuthMode::Local), platform, ..AuthConfig::default() });
    Config { tenant: TenantId(TENANT.into()), auth, ..Config::new(database) }
}

/// A session of the one person of a local tenant.
pub fn session(ctx: &Ctx) -> Session {
    Session::new(ctx.db.clone(), Arc::new(Caller::local(ctx.config.tenant.clone())), Permission::RunsRead)
}
