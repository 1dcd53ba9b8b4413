//! Supervises parts of the stack: restarts what ended without a stop signal, with a growing delay.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::process::Process;
use crate::process::stop::{self, StopSender, StopSignal};
use crate::report;

/// A running part of the stack: its tasks, and their stop signal.
#[derive(Debug)]
pub struct Part {
    pub stop_sender: StopSender,
    pub tasks: Vec<JoinHandle<()>>,
    /// How long its tasks may take to stop before they are aborted, which kills their processes.
    pub limit: Duration,
}

impl Part {
    pub async fn stop(self) {
        self.stop_sender.send();
        let start = Instant::now();
        for mut task in self.tasks {
            if timeout(self.limit.saturating_sub(start.elapsed()), &mut task).await.is_err() {
                task.abort();
                let _ = task.await;
            }
        }
    }
}

/// Delays between restarts. Each is twice as long as the one before, up to a maximum.
#[derive(Debug)]
pub struct Backoff {
    pause: Duration,
    started: Instant,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(30);
    /// After running this long, the delay starts from the beginning.
    const STABLE: Duration = Duration::from_mins(1);

    pub fn new() -> Self {
        Self { pause: Self::FIRST, started: Instant::now() }
    }

    /// Records the time of a start.
    pub fn started(&mut self) {
        self.started = Instant::now();
    }

    /// The delay before the next start.
    pub fn next_pause(&mut self) -> Duration {
        if self.started.elapsed() > Self::STABLE {
            self.pause = Self::FIRST;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(Self::MAX);
        pause
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// Keeps a process running. When it ends, `start` starts it again.
pub fn supervise<F, Fut>(name: &'static str, process: Process, start: F) -> Part
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Process>> + Send + 'static,
{
    let (stop_sender, stop) = stop::channel();
    let task = tokio::spawn(supervise_until(name, process, start, stop));
    Part { stop_sender, tasks: vec![task], limit: Duration::from_secs(30) }
}

async fn supervise_until<F, Fut>(name: &'static str, mut process: Process, start: F, mut stop: StopSignal)
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = Result<Process>> + Send,
{
    let mut backoff = Backoff::new();
    loop {
        let status = tokio::select! {
            () = stop.received() => return process.end().await,
            status = process.wait() => status,
        };
        let ended = Instant::now();
        let how = status.map_or_else(|error| error.to_string(), |status| format!("ended ({status})"));
        process = loop {
            let restarted = tokio::select! {
                () = stop.received() => return,
                restarted = async {
                    sleep(backoff.next_pause()).await;
                    start().await
                } => restarted,
            };
            match restarted {
                Ok(process) => break process,
                Err(error) => report::line(name, format_args!("{how}, and the restart failed: {error:#}")),
            }
        };
        backoff.started();
        report::took(name, format_args!("{how} and was restarted"), ended.elapsed());
    }
}
