//! The Lambda functions of the local stack: the settings of `shared::domain::tool`, as on AWS, and the local
//! concurrency of each.

use std::time::Duration;

use shared::domain::tool::{HANDLERS, HandlerSpec, LONG_GATES};

/// A function that a queue feeds.
#[derive(Clone, Copy, Debug)]
pub struct QueueFunction {
    pub spec: &'static HandlerSpec,
    /// Concurrent polls, each with one batch in flight. Only as many as the function can handle soon, so that no
    /// message uses up its visibility timeout behind a slow one.
    pub polls: u32,
    /// Processes of the function.
    pub processes: u32,
}

/// The functions behind HTTP.
pub const HTTP_FUNCTIONS: [&str; 3] = ["api", "approvals", "console"];

pub const SWEEPER: &str = "sweeper";
pub const SWEEPER_TIMEOUT: Duration = Duration::from_mins(1);

/// The function that runs the commands of gates. `gate` calls it.
pub const GATE_RUNNER: &str = "gate_runner";

/// Every queue function.
pub fn queue_functions() -> impl Iterator<Item = QueueFunction> {
    HANDLERS.iter().map(|spec| {
        // A batch size of 1 means long work: one poll for each process. Short work gets as many polls as Lambda starts
        // with, and its batches may wait for each other.
        let (polls, processes) = if spec.batch_size == 1 { (2, 2) } else { (5, 1) };
        QueueFunction { spec, polls, processes }
    })
}

/// Handlers that no function serves: a program polls their queues (`nofx worker`).
pub fn polled_handlers() -> impl Iterator<Item = &'static HandlerSpec> {
    [&LONG_GATES].into_iter()
}

/// The names of all functions, which are also those of their binaries.
pub fn names() -> impl Iterator<Item = &'static str> {
    HTTP_FUNCTIONS.into_iter().chain(HANDLERS.iter().map(|spec| spec.name)).chain([GATE_RUNNER, SWEEPER])
}

impl QueueFunction {
    pub fn name(&self) -> &'static str {
        self.spec.name
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.spec.function_timeout_s))
    }
}

/// The path that invokes a function.
pub fn invocation_path(name: &str) -> String {
    format!("/2015-03-31/functions/{name}/invocations")
}
