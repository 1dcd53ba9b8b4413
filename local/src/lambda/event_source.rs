//! The local event source mapping: polls a queue, invokes its function with an SQS event, and deletes the messages that
//! the function did not report as failed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName,
};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::aws::resources::{Aws, Queue, REGION};
use crate::function::{QueueFunction, invocation_path};
use crate::lambda::host::Health;
use crate::lambda::sqs_event::{self, BatchResult};
use crate::process::stop::StopSignal;
use crate::report;

/// Maximum wait of SQS. The stack's emulator answers a waiting poll as soon as there is a message.
pub const WAIT_MAX_S: i32 = 20;
/// For an emulator that outlives the stack. It may not notice that a client disconnected, and give its poll a message.
pub const WAIT_SHORT_S: i32 = 2;
/// Messages that no function took become visible again after this time.
const RETURN_AFTER_S: i32 = 2;
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The mapping of one queue to one function.
#[derive(Clone, Debug)]
pub struct EventSource {
    pub function: QueueFunction,
    pub queue: Queue,
    /// How long a poll waits for messages.
    pub wait_s: i32,
    /// Port of the function's host.
    pub port: u16,
    pub aws: Aws,
    pub http: reqwest::Client,
    pub health: Health,
}

/// Why an invocation has no answer.
enum InvokeError {
    /// No process took it, or the process has ended. The messages can return soon. If a step was already claimed, its
    /// lease delays the retry.
    NotTaken(String),
    /// A process may still be running it. The messages return after their visibility timeout.
    Lost(String),
}

impl EventSource {
    /// Starts the polls of this mapping.
    pub fn start(self, stop: &StopSignal) -> Vec<JoinHandle<()>> {
        let source = Arc::new(self);
        (0..source.function.polls).map(|_| tokio::spawn(Arc::clone(&source).poll_until(stop.clone()))).collect()
    }

    async fn poll_until(self: Arc<Self>, mut stop: StopSignal) {
        let mut health = self.health.clone();
        let mut pause = RETRY_FIRST;
        loop {
            let received = tokio::select! {
                () = stop.received() => return,
                messages = async { health.ready().await; self.receive().await } => messages,
            };
            match received {
                // Not cancelled by the stop signal: received messages are handled to the end.
                Ok(messages) if !messages.is_empty() => {
                    self.deliver(&messages).await;
                    pause = RETRY_FIRST;
                }
                Ok(_) => pause = RETRY_FIRST,
                // The supervisor reports an emulator that is down. Here it is enough to wait.
                Err(_) => {
                    tokio::select! {
                        () = stop.received() => return,
                        () = sleep(pause) => {}
                    }
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn receive(&self) -> Result<Vec<Message>> {
        let output = self
            .aws
            .sqs
            .receive_message()
            .queue_url(&self.queue.url)
            .max_number_of_messages(i32::try_from(self.function.spec.batch_size).unwrap_or(10))
            .wait_time_seconds(self.wait_s)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All")
            .send()
            .await
            .context("cannot receive")?;
        Ok(output.messages.unwrap_or_default())
    }

    async fn deliver(&self, messages: &[Message]) {
        let name = self.function.name();
        let ids: BTreeSet<&str> = messages.iter().filter_map(Message::message_id).collect();
        let result = match self.invoke(messages).await {
            Ok(answer) => match sqs_event::batch_result(&answer, &ids) {
                BatchResult::DoneExcept(failed) => self.delete(messages, &failed).await,
                BatchResult::Failed(problem) => {
                    report::line(name, format_args!("failed: {problem}"));
                    Ok(())
                }
            },
            Err(InvokeError::NotTaken(problem)) => {
                report::line(name, format_args!("{problem}: its messages return in {RETURN_AFTER_S} s"));
                self.return_soon(messages).await
            }
            Err(InvokeError::Lost(problem)) => {
                report::line(name, format_args!("did not answer: {problem}"));
                Ok(())
            }
        };
        if let Err(error) = result {
            report::line(name, format_args!("{error:#}"));
        }
    }

    async fn invoke(&self, messages: &[Message]) -> Result<Vec<u8>, InvokeError> {
        let timeout = self.function.timeout() + Duration::from_secs(5);
        let url = format!("http://127.0.0.1:{}{}", self.port, invocation_path(self.function.name()));
        let request = self.http.post(url).timeout(timeout).json(&sqs_event::event(messages, &self.queue.arn, REGION));
        let mut health = self.health.clone();
        let epoch = health.epoch();
        let answer = async {
            let response = request.send().await?;
            let status = response.status();
            Ok::<_, reqwest::Error>((status, response.bytes().await?))
        };
        let answer = tokio::select! {
            answer = answer => answer,
            // A host does not answer for a process that died. Without this, the poll would wait for the timeout.
            () = health.changed_since(epoch) => return Err(InvokeError::NotTaken("its process ended".to_owned())),
        };
        match answer {
            Ok((status, body)) if status.is_success() => Ok(body.to_vec()),
            Ok((status, _)) => Err(InvokeError::NotTaken(format!("its host answered {status}"))),
            Err(error) if error.is_connect() => Err(InvokeError::NotTaken("its host is down".to_owned())),
            Err(error) if error.is_timeout() => Err(InvokeError::Lost(format!("none within {} s", timeout.as_secs()))),
            Err(error) => Err(InvokeError::Lost(error.to_string())),
        }
    }

    async fn delete(&self, messages: &[Message], failed: &BTreeSet<String>) -> Result<()> {
        let done = messages.iter().filter(|message| message.message_id().is_none_or(|id| !failed.contains(id)));
        let entries: Vec<_> = batch_entries(done)
            .map(|(id, handle)| DeleteMessageBatchRequestEntry::builder().id(id).receipt_handle(handle).build())
            .collect::<Result<_, _>>()?;
        if entries.is_empty() {
            return Ok(());
        }
        let request = self.aws.sqs.delete_message_batch().queue_url(&self.queue.url).set_entries(Some(entries));
        // If this fails, they are delivered again and find nothing to claim.
        let output = request.send().await.context("cannot delete messages")?;
        if !output.failed.is_empty() {
            bail!("cannot delete {} messages", output.failed.len());
        }
        Ok(())
    }

    async fn return_soon(&self, messages: &[Message]) -> Result<()> {
        let entries: Vec<_> = batch_entries(messages)
            .map(|(id, handle)| {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id).receipt_handle(handle);
                entry.visibility_timeout(RETURN_AFTER_S).build()
            })
            .collect::<Result<_, _>>()?;
        let request = self.aws.sqs.change_message_visibility_batch().queue_url(&self.queue.url);
        request.set_entries(Some(entries)).send().await.context("cannot return messages")?;
        Ok(())
    }
}

/// Each message's id within a batch request, and its receipt handle.
fn batch_entries<'a>(messages: impl IntoIterator<Item = &'a Message>) -> impl Iterator<Item = (String, &'a str)> {
    let messages = messages.into_iter().enumerate();
    messages.map(|(index, message)| (index.to_string(), message.receipt_handle().unwrap_or_default()))
}
