//! Starting a server: it is up when it answers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::StatusCode;
use tokio::process::Command;
use tokio::time::sleep;

use crate::process::{self, Ending, Ledger, Process};

/// A Postgres that was killed replays its log first.
const START_LIMIT: Duration = Duration::from_mins(1);
const CHECK_PERIOD: Duration = Duration::from_millis(20);

/// Starts `command`, with its output in `log`, and waits until `check` passes. A server that does not come up is ended.
pub async fn start<F: Future<Output = Result<()>>>(
    name: &str,
    mut command: Command,
    ending: Ending,
    log: &Path,
    ledger: &Ledger,
    check: impl Fn() -> F,
) -> Result<Process> {
    process::log_to(&mut command, log)?;
    let mut server = Process::spawn(name, command, ending, ledger)?;
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

/// A request, and the status that it gets once the server is up.
#[derive(Clone, Debug)]
pub struct Probe {
    pub url: String,
    pub status: StatusCode,
}

impl Probe {
    async fn check(&self) -> Result<()> {
        let status = reqwest::get(&self.url).await?.status();
        ensure!(status == self.status, "GET {} gave {status}", self.url);
        Ok(())
    }
}

/// The same for a server that speaks HTTP: it is up when it answers the probe.
pub async fn start_http(
    name: &str,
    command: Command,
    ending: Ending,
    probe: &Probe,
    log: &Path,
    ledger: &Ledger,
) -> Result<Process> {
    start(name, command, ending, log, ledger, || probe.check()).await
}
