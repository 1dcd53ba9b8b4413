//! Wake-ups over SQS. They carry only ids, because Postgres holds all state.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use aws_sdk_sqs::types::{
    Message as SqsMessage, MessageSystemAttributeName as Attribute, QueueAttributeName, SendMessageBatchRequestEntry,
};
use futures::future;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};
use uuid::Uuid;

pub use crate::domain::WakeUp;
use crate::domain::tool::{dead_letter_queue_name, queue_name};
use crate::domain::trace::TraceParent;
use crate::domain::{RunId, StepId, TenantId, Timestamp};
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

/// How many messages the queues of a handler hold. SQS counts approximately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    pub waiting: u64,
    pub in_flight: u64,
    pub delayed: u64,
    pub dead_letters: u64,
}

/// A message that no worker could take.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub id: String,
    pub body: String,
    pub sent_at: Option<Timestamp>,
    receipt_handle: String,
    group: Option<String>,
}

/// What a redrive moved.
#[derive(Debug, Default)]
pub struct Moved {
    pub count: u64,
    /// Whether messages may be left.
    pub more: bool,
    /// Why it ended early.
    pub failure: Option<Error>,
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
/// Maximum number of messages of one receive.
const RECEIVED: i32 = 10;
/// How long a dead letter is hidden while it is moved. If the move ends early, it appears again.
const MOVE_S: i32 = 60;
/// Maximum number of receives of one redrive.
const MOVES: usize = 10;

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

    /// How many messages the handler's queues hold.
    pub async fn depth(&self, handler: &str) -> Result<Depth, Error> {
        let sqs = self.of_sqs()?;
        let (queue, dead) = (queue_name(&sqs.prefix, handler), dead_letter_queue_name(&sqs.prefix, handler));
        let (queue, dead) = future::try_join(sqs.counts(&queue), sqs.counts(&dead)).await?;
        let [waiting, in_flight, delayed] = queue;
        // Dead letters that somebody reads or moves are still there.
        Ok(Depth { waiting, in_flight, delayed, dead_letters: dead.iter().sum() })
    }

    /// Some dead letters of a handler. They stay in their queue, and stay visible.
    pub async fn dead_letters(&self, handler: &str) -> Result<Vec<DeadLetter>, Error> {
        let sqs = self.of_sqs()?;
        sqs.receive_dead(&dead_letter_queue_name(&sqs.prefix, handler), 0).await
    }

    /// Moves at most 100 dead letters back to the handler's queue. If the move of one ends after it was sent, it is in both
    /// queues: a wake-up that comes twice does nothing the second time.
    pub async fn redrive(&self, handler: &str) -> Moved {
        let mut moved = Moved::default();
        let done = match self.of_sqs() {
            Ok(sqs) => sqs.redrive(handler, &mut moved).await,
            Err(error) => Err(error),
        };
        moved.failure = done.err();
        moved
    }

    fn of_sqs(&self) -> Result<&Sqs, Error> {
        match self {
            Self::Sqs(sqs) => Ok(sqs),
            Self::Channel(_) => Err(Error::unavailable("SQS", "a channel has no queues")),
        }
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
        self.url_of(&queue_name(&self.prefix, handler)).await
    }

    async fn url_of(&self, name: &str) -> Result<String, Error> {
        if let Some(url) = self.urls.lock().await.get(name) {
            return Ok(url.clone());
        }
        let answer = self.client.get_queue_url().queue_name(name).send().await;
        let url = answer
            .map_err(|error| Error::unavailable("SQS", error))?
            .queue_url
            .ok_or_else(|| Error::unavailable("SQS", format!("returned no URL for {name}")))?;
        self.urls.lock().await.insert(name.to_owned(), url.clone());
        Ok(url)
    }

    /// Messages of a queue: waiting, in flight, delayed.
    async fn counts(&self, name: &str) -> Result<[u64; 3], Error> {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(self.url_of(name).await?)
            .set_attribute_names(Some(names.to_vec()))
            .send()
            .await
            .map_err(|error| Error::unavailable("SQS", error))?;
        let attributes = answer.attributes.unwrap_or_default();
        Ok(names.map(|name| attributes.get(&name).and_then(|text| text.parse().ok()).unwrap_or_default()))
    }

    async fn receive_dead(&self, name: &str, hidden_s: i32) -> Result<Vec<DeadLetter>, Error> {
        let answer = self
            .client
            .receive_message()
            .queue_url(self.url_of(name).await?)
            .max_number_of_messages(RECEIVED)
            .visibility_timeout(hidden_s)
            // Without a wait, SQS asks only some of its servers.
            .wait_time_seconds(1)
            .message_system_attribute_names(Attribute::SentTimestamp)
            .message_system_attribute_names(Attribute::MessageGroupId)
            .send()
            .await
            .map_err(|error| Error::unavailable("SQS", error))?;
        Ok(answer.messages.unwrap_or_default().into_iter().map(dead_letter).collect())
    }

    async fn redrive(&self, handler: &str, moved: &mut Moved) -> Result<(), Error> {
        let dead = dead_letter_queue_name(&self.prefix, handler);
        for _ in 0..MOVES {
            moved.more = true;
            let letters = self.receive_dead(&dead, MOVE_S).await?;
            if letters.is_empty() {
                moved.more = false;
                return Ok(());
            }
            let results =
                future::join_all(letters.iter().map(|letter| self.return_letter(handler, &dead, letter))).await;
            moved.count += results.iter().filter(|result| result.is_ok()).count() as u64;
            let all: Result<(), Error> = results.into_iter().collect();
            // It may have been sent, and only not deleted.
            all.map_err(|error| Error::unanswered("SQS", error))?;
        }
        Ok(())
    }

    /// Sends a dead letter to the handler's queue, then deletes it from the queue `dead`.
    async fn return_letter(&self, handler: &str, dead: &str, letter: &DeadLetter) -> Result<(), Error> {
        let send = self.client.send_message().queue_url(self.url(handler).await?).message_body(&letter.body);
        send.set_message_group_id(letter.group.clone())
            .send()
            .await
            .map_err(|error| Error::unavailable("SQS", error))?;
        let delete = self.client.delete_message().queue_url(self.url_of(dead).await?);
        let deleted = delete.receipt_handle(&letter.receipt_handle).send().await;
        deleted.map_err(|error| Error::unavailable("SQS", error))?;
        Ok(())
    }
}

fn dead_letter(message: SqsMessage) -> DeadLetter {
    let mut attributes = message.attributes.unwrap_or_default();
    let sent_ms: Option<i64> = attributes.get(&Attribute::SentTimestamp).and_then(|text| text.parse().ok());
    let sent_at = sent_ms.and_then(|ms| DateTime::from_millis(ms).fmt(DateTimeFormat::DateTime).ok());
    DeadLetter {
        id: message.message_id.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
        sent_at: sent_at.map(Timestamp),
        receipt_handle: message.receipt_handle.unwrap_or_default(),
        group: attributes.remove(&Attribute::MessageGroupId),
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
