//! Starting a server that speaks HTTP: it is up when it answers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use reqwest::StatusCode;
use tokio::process::Command;
use tokio::time::sleep;

use crate::process::{self, Ending, Ledger, Process};

const START_LIMIT: Duration = Duration::from_secs(30);

/// A request, and the status that it gets once the server is up.
#[derive(Clone, Debug)]
pub struct Probe {
    pub url: String,
    pub status: StatusCode,
}

/// Starts `command`, with its output in `log`, and waits until the probe is answered.
pub async fn start(
    name: &str,
    mut command: Command,
    ending: Ending,
    probe: &Probe,
    log: &Path,
    ledger: &Ledger,
) -> Result<Process> {
    process::log_to(&mut command, log)?;
    let mut server = Process::spawn(name, command, ending, ledger)?;
    let start = Instant::now();
    loop {
        tokio::select! {
            status = server.wait() => {
                bail!("the {name} ended with {} while it started, see {}", status?, log.display());
            }
            () = sleep(Duration::from_millis(50)) => {}
        }
        if reqwest::get(&probe.url).await.is_ok_and(|response| response.status() == probe.status) {
            return Ok(server);
        }
        if start.elapsed() > START_LIMIT {
            server.end().await;
            bail!("the {name} does not answer, see {}", log.display());
        }
    }
}
