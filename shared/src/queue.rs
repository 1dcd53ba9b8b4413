//! Wake-ups over SQS. They carry only ids, because Postgres holds all state.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use futures::future;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};
use uuid::Uuid;

pub use crate::domain::WakeUp;
use crate::domain::tool::queue_name;
use crate::domain::trace::TraceParent;
use crate::domain::{RunId, StepId, TenantId};
use crate::error::Error;

/// The message body of a wake-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub step_id: StepId,
    /// W3C trace context of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// A message that a poll received.
#[derive(Debug, Clone)]
pub struct Received {
    pub id: String,
    pub receipt_handle: String,
    pub body: String,
}

/// Where wake-ups are sent.
#[derive(Clone)]
pub enum Queue {
    Sqs(Sqs),
    /// A channel in this process, for benchmarks and tests that call the worker's entry points.
    Channel(mpsc::UnboundedSender<WakeUp>),
}

/// Queues of AWS or of an emulator.
#[derive(Clone)]
pub struct Sqs {
    client: aws_sdk_sqs::Client,
    prefix: Arc<str>,
    urls: Arc<Mutex<HashMap<String, String>>>,
}

/// SQS delays a message by at most 15 minutes. If a step is due later, the sweeper wakes it again.
const MAX_DELAY_S: u64 = 900;
/// Maximum wait of a poll.
const MAX_WAIT_S: i32 = 20;
/// Maximum number of entries in a batch call.
const BATCH: usize = 10;

impl Queue {
    pub fn sqs(client: aws_sdk_sqs::Client, prefix: &str) -> Self {
        Self::Sqs(Sqs { client, prefix: prefix.into(), urls: Arc::default() })
    }

    /// Sends wake-ups, each to its handler's queue. An error means that some may not have been sent. The sweeper sends
    /// those again.
    pub async fn send(&self, wakeups: Vec<WakeUp>) -> Result<(), Error> {
        match self {
            Self::Channel(channel) => {
                for wakeup in wakeups {
                    channel.send(wakeup).map_err(|error| Error::unavailable("the wake-up channel", error))?;
                }
                Ok(())
            }
            Self::Sqs(sqs) => sqs.send(wakeups).await,
        }
    }

    /// Waits for one message, at most as long as SQS does.
    pub async fn receive(&self, handler: &str) -> Result<Option<Received>, Error> {
        let Self::Sqs(sqs) = self else { return Err(Error::unavailable("SQS", "a channel has no messages to poll")) };
        let answer = sqs
            .client
            .receive_message()
            .queue_url(sqs.url(handler).await?)
            .max_number_of_messages(1)
            .wait_time_seconds(MAX_WAIT_S)
            .send()
            .await
            .map_err(|error| Error::unavailable("SQS", error))?;
        let received = answer.messages.unwrap_or_default().into_iter().next();
        Ok(received.map(|message| Received {
            id: message.message_id.unwrap_or_default(),
            receipt_handle: message.receipt_handle.unwrap_or_default(),
            body: message.body.unwrap_or_default(),
        }))
    }

    /// Deletes a received message.
    pub async fn delete(&self, handler: &str, receipt_handle: &str) -> Result<(), Error> {
        let Self::Sqs(sqs) = self else { return Ok(()) };
        let delete = sqs.client.delete_message().queue_url(sqs.url(handler).await?).receipt_handle(receipt_handle);
        delete.send().await.map_err(|error| Error::unavailable("SQS", error))?;
        Ok(())
    }

    /// Makes a received message visible again after `after_s` seconds. Best effort: otherwise it becomes visible after
    /// the queue's visibility timeout.
    pub async fn release(&self, handler: &str, receipt_handle: &str, after_s: i32) -> Result<(), Error> {
        let Self::Sqs(sqs) = self else { return Ok(()) };
        sqs.client
            .change_message_visibility()
            .queue_url(sqs.url(handler).await?)
            .receipt_handle(receipt_handle)
            .visibility_timeout(after_s)
            .send()
            .await
            .map_err(|error| Error::unavailable("SQS", error))?;
        Ok(())
    }
}

impl Sqs {
    async fn send(&self, wakeups: Vec<WakeUp>) -> Result<(), Error> {
        let mut by_handler: HashMap<String, Vec<WakeUp>> = HashMap::new();
        for wakeup in wakeups {
            by_handler.entry(wakeup.handler.clone()).or_default().push(wakeup);
        }
        let batches = by_handler
            .iter()
            .flat_map(|(handler, wakeups)| wakeups.chunks(BATCH).map(move |batch| self.send_batch(handler, batch)));
        future::join_all(batches).await.into_iter().collect()
    }

    async fn send_batch(&self, handler: &str, wakeups: &[WakeUp]) -> Result<(), Error> {
        let entries = wakeups.iter().enumerate().map(|(index, wakeup)| entry(index, wakeup));
        let answer = self
            .client
            .send_message_batch()
            .queue_url(self.url(handler).await?)
            .set_entries(Some(entries.collect::<Result<_, _>>()?))
            .send()
            .await
            .map_err(|error| Error::unavailable("SQS", error))?;
        match answer.failed() {
            [] => Ok(()),
            [first, ..] => Err(Error::unavailable("SQS", format!("refused a wake-up: {}", first.code()))),
        }
    }

    async fn url(&self, handler: &str) -> Result<String, Error> {
        let mut urls = self.urls.lock().await;
        if let Some(url) = urls.get(handler) {
            return Ok(url.clone());
        }
        let name = queue_name(&self.prefix, handler);
        let answer = self.client.get_queue_url().queue_name(&name).send().await;
        let url = answer
            .map_err(|error| Error::unavailable("SQS", error))?
            .queue_url
            .ok_or_else(|| Error::unavailable("SQS", format!("returned no URL for {name}")))?;
        urls.insert(handler.to_owned(), url.clone());
        Ok(url)
    }
}

fn entry(index: usize, wakeup: &WakeUp) -> Result<SendMessageBatchRequestEntry, Error> {
    let message = Message {
        tenant_id: wakeup.tenant_id.clone(),
        run_id: wakeup.run_id,
        step_id: wakeup.step_id,
        traceparent: wakeup
            .traceparent
            .as_deref()
            .and_then(TraceParent::parse)
            .map(|trace| trace.child(Uuid::new_v4()).to_string()),
    };
    let body = serde_json::to_string(&message).map_err(|error| Error::internal("encode a wake-up", error))?;
    // Rounded up, because a message that arrives early finds nothing to claim.
    let delay_s = wakeup.delay_ms.div_ceil(1_000).min(MAX_DELAY_S);
    SendMessageBatchRequestEntry::builder()
        .id(index.to_string())
        .message_body(body)
        .delay_seconds(i32::try_from(delay_s).unwrap_or(i32::MAX))
        // On a standard queue this is a key for fairness between tenants, and does not order messages.
        .message_group_id(&wakeup.tenant_id.0)
        .build()
        .map_err(|error| Error::internal("build a wake-up", error))
}
