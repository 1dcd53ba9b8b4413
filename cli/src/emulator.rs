//! The AWS emulator (MiniStack): SQS, S3 and Secrets Manager on one loopback port.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tokio::{process::Command, time::sleep};

use crate::{
    environment,
    process::{self, Ending, Ledger, Process},
    python::PythonEnv,
};

const START_LIMIT: Duration = Duration::from_secs(30);
/// It saves its state while it ends.
const ENDING: Ending = Ending::new(Signal::TERM, Duration::from_secs(10));

/// An emulator with its state below `dir`.
#[derive(Clone, Debug)]
pub struct Emulator {
    python: PathBuf,
    dir: PathBuf,
    port: u16,
    /// The services it offers; all of them if none are named.
    services: Option<&'static str>,
}

impl Emulator {
    /// What a running control plane needs, and nothing that starts programs on this machine for whoever asks.
    pub const RUN_SERVICES: &'static str = "sqs,s3,secretsmanager,kms,sts";

    pub fn new(env: &PythonEnv, dir: PathBuf, port: u16, services: Option<&'static str>) -> Self {
        Self { python: env.program("python"), dir, port, services }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts the emulator and waits until it answers.
    pub async fn start(&self, log: &Path, ledger: &Ledger) -> Result<Process> {
        let temporary = self.dir.join("tmp");
        fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
        let mut command = Command::new(&self.python);
        command.args(["-m", "ministack"]).current_dir(&self.dir);
        environment::keep_back(&mut command);
        command
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", self.port.to_string())
            .env("AWS_ENDPOINT_URL", self.url())
            .env("PERSIST_STATE", "1")
            .env("STATE_DIR", self.dir.join("state"))
            .env("S3_PERSIST", "1")
            .env("S3_DATA_DIR", self.dir.join("s3"))
            .env("TMPDIR", temporary)
            // Both would open ports of their own.
            .env("IOT_MTLS_ENABLED", "0")
            .env("SFTP_ENABLED", "0")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .env("LOG_LEVEL", "WARNING");
        match self.services {
            Some(services) => command.env("SERVICES", services),
            None => command.env_remove("SERVICES"),
        };
        process::log_to(&mut command, log)?;
        let mut emulator = Process::spawn("emulator", command, ENDING, ledger)?;
        let url = format!("{}/_ministack/health", self.url());
        let start = Instant::now();
        loop {
            tokio::select! {
                status = emulator.wait() => bail!("the emulator ended with {} while it started, see {}", status?, log.display()),
                () = sleep(Duration::from_millis(50)) => {}
            }
            if reqwest::get(&url).await.is_ok_and(|response| response.status().is_success()) {
                return Ok(emulator);
            }
            if start.elapsed() > START_LIMIT {
                emulator.end().await;
                bail!("the emulator does not answer, see {}", log.display());
            }
        }
    }
}
