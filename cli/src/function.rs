//! The Lambda functions as the local stack runs them: the same numbers that template.yaml gives AWS.

use std::time::Duration;

/// A function that a queue feeds.
#[derive(Debug)]
pub struct QueueFunction {
    pub name: &'static str,
    pub timeout_s: u32,
    pub batch_size: i32,
    /// Batches in flight at once, each received by a poll of its own: as many as the function can work on soon, so
    /// that no message waits out its visibility behind a slow one.
    pub polls: u32,
    /// Processes of the function.
    pub processes: u32,
}

/// Every queue function, by the name of its handler.
pub const QUEUE_FUNCTIONS: [QueueFunction; 5] = [
    QueueFunction { name: "gate", timeout_s: 600, batch_size: 1, polls: 2, processes: 2 },
    QueueFunction { name: "codegen", timeout_s: 120, batch_size: 1, polls: 2, processes: 2 },
    QueueFunction { name: "manual", timeout_s: 30, batch_size: 10, polls: 5, processes: 1 },
    QueueFunction { name: "db_write", timeout_s: 60, batch_size: 10, polls: 5, processes: 1 },
    QueueFunction { name: "echo", timeout_s: 30, batch_size: 10, polls: 5, processes: 1 },
];

/// The functions behind HTTP.
pub const HTTP_FUNCTIONS: [&str; 3] = ["api", "approvals", "console"];

pub const SWEEPER: &str = "sweeper";
pub const SWEEPER_TIMEOUT: Duration = Duration::from_mins(1);

/// SQS keeps a message invisible for twelve hours at most.
const VISIBILITY_MAX_S: u32 = 43_200;

impl QueueFunction {
    /// AWS advises six times the timeout of the function: room for retries inside the event source.
    pub fn visibility_s(&self) -> u32 {
        (self.timeout_s * 6).min(VISIBILITY_MAX_S)
    }

    pub fn queue(&self, prefix: &str) -> String {
        format!("{prefix}step-ready-{}", self.name)
    }

    pub fn dead_letter_queue(&self, prefix: &str) -> String {
        format!("{}-dlq", self.queue(prefix))
    }
}

/// The path that invokes a function.
pub fn invocation_path(name: &str) -> String {
    format!("/2015-03-31/functions/{name}/invocations")
}
