//! Parts of the stack that are kept running: what ends without being asked to is started again, later each time.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::process::Process;
use crate::process::stop::{self, Stop, Stopper};
use crate::report;

/// A running part: its tasks, and the way to stop them.
#[derive(Debug)]
pub struct Part {
    pub stopper: Stopper,
    pub tasks: Vec<JoinHandle<()>>,
    /// How long its tasks may take to stop before they are dropped, and their processes killed.
    pub limit: Duration,
}

impl Part {
    pub async fn stop(self) {
        self.stopper.ask();
        let start = Instant::now();
        for mut task in self.tasks {
            if timeout(self.limit.saturating_sub(start.elapsed()), &mut task).await.is_err() {
                task.abort();
                let _ = task.await;
            }
        }
    }
}

/// Pauses between restarts: short at first, longer while they do not help.
#[derive(Debug)]
pub struct Backoff {
    pause: Duration,
    started: Instant,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(30);
    /// What ran this long has recovered.
    const STABLE: Duration = Duration::from_mins(1);

    pub fn new() -> Self {
        Self { pause: Self::FIRST, started: Instant::now() }
    }

    /// Notes a start.
    pub fn started(&mut self) {
        self.started = Instant::now();
    }

    /// The pause before the next start.
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

/// Keeps a process running: when it ends, `start` makes the next one.
pub fn keep<F, Fut>(name: &'static str, process: Process, start: F) -> Part
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Process>> + Send + 'static,
{
    let (stopper, stop) = stop::channel();
    let task = tokio::spawn(keep_until(name, process, start, stop));
    Part { stopper, tasks: vec![task], limit: Duration::from_secs(30) }
}

async fn keep_until<F, Fut>(name: &'static str, mut process: Process, start: F, mut stop: Stop)
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = Result<Process>> + Send,
{
    let mut backoff = Backoff::new();
    loop {
        let status = tokio::select! {
            () = stop.asked() => return process.end().await,
            status = process.wait() => status,
        };
        let ended = Instant::now();
        let how = status.map_or_else(|error| error.to_string(), |status| format!("ended ({status})"));
        process = loop {
            let restarted = tokio::select! {
                () = stop.asked() => return,
                restarted = async {
                    sleep(backoff.next_pause()).await;
                    start().await
                } => restarted,
            };
            match restarted {
                Ok(process) => break process,
                Err(error) => report::line(name, format_args!("{how} and does not start again yet: {error:#}")),
            }
        };
        backoff.started();
        report::took(name, format_args!("{how} and was started again"), ended.elapsed());
    }
}
