//! Starts a server and waits until it answers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::StatusCode;
use tokio::process::Command;
use tokio::time::sleep;

use crate::process::{self, PidFile, Process, Termination};

/// A Postgres that was killed replays its log at start.
const START_LIMIT: Duration = Duration::from_mins(1);
const CHECK_PERIOD: Duration = Duration::from_millis(20);

/// Starts `command`, with its output in `log`, and waits until `check` passes. Ends a server that does not become
/// ready.
pub async fn start<F: Future<Output = Result<()>>>(
    name: &str,
    mut command: Command,
    termination: Termination,
    log: &Path,
    pid_file: &PidFile,
    check: impl Fn() -> F,
) -> Result<Process> {
    process::log_to(&mut command, log)?;
    let mut server = Process::spawn(name, command, termination, pid_file)?;
    let start = Instant::now();
    loop {
        tokio::select! {
            status = server.wait() => {
                bail!("{name} ended with {} while it started, see {}", status?, log.display());
            }
            () = sleep(CHECK_PERIOD) => {}
        }
        match check().await {
            Ok(()) => return Ok(server),
            Err(error) if start.elapsed() > START_LIMIT => {
                server.end().await;
                return Err(error).with_context(|| format!("{name} does not answer, see {}", log.display()));
            }
            Err(_) => {}
        }
    }
}

/// A URL, and the status that it returns when the server is ready.
#[derive(Clone, Debug)]
pub struct Probe {
    pub url: String,
    pub status: StatusCode,
}

impl Probe {
    async fn check(&self) -> Result<()> {
        let status = reqwest::get(&self.url).await?.status();
        ensure!(status == self.status, "GET {} returned {status}", self.url);
        Ok(())
    }
}

/// The same for an HTTP server. It is ready when the probe passes.
pub async fn start_http(
    name: &str,
    command: Command,
    termination: Termination,
    probe: &Probe,
    log: &Path,
    pid_file: &PidFile,
) -> Result<Process> {
    start(name, command, termination, log, pid_file, || probe.check()).await
}
