//! Queues of handlers.

use serde::{Deserialize, Serialize};

use crate::domain::{RunId, StepId, StepStatus, Timestamp};

/// The queues of all handlers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct QueueList {
    pub queues: Vec<QueueDepth>,
}

/// How many messages a handler's queues hold. SQS counts approximately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct QueueDepth {
    pub handler: String,
    /// Messages that a worker could receive now.
    pub waiting: u64,
    /// Messages that a worker has received and not deleted yet.
    pub in_flight: u64,
    /// Messages that become visible later.
    pub delayed: u64,
    pub dead_letters: u64,
}

/// A handler's queues, and some of its dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct QueueDetail {
    #[serde(flatten)]
    pub depth: QueueDepth,
    /// At most 10, in no order. Reading them leaves them in the queue.
    pub messages: Vec<DeadLetter>,
}

/// A message that no worker could take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct DeadLetter {
    /// The message's id in SQS and in logs.
    pub id: String,
    pub sent_at: Option<Timestamp>,
    /// Why it is here, or what a redrive would do.
    pub reason: String,
    /// The step that the message would wake. Null if there is none, or if it belongs to another tenant.
    pub step: Option<DeadLetterStep>,
    /// The message as text, shortened. Null for the wake-up of another tenant.
    pub body: Option<String>,
}

/// The step of a dead wake-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct DeadLetterStep {
    pub id: StepId,
    pub name: String,
    pub status: StepStatus,
    pub run_id: RunId,
    pub goal: String,
}

/// Result of a redrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Redriven {
    pub handler: String,
    /// Messages that went back to the handler's queue.
    pub moved: u64,
    /// Whether messages may be left: one call moves at most 100.
    pub more: bool,
}
