//! The AWS emulator (MiniStack): SQS, S3 and Secrets Manager on one loopback port.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rustix::process::Signal;
use tokio::process::Command;

use crate::process::server::{self, Probe};
use crate::process::{self, Ending, Ledger, Process};
use crate::tools::python::PythonEnv;

/// MiniStack, started by a program that lets long polls wait for messages: its own look for them ten times a second.
const PROGRAM: &str = include_str!("emulator.py");
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
    variables: BTreeMap<&'static str, String>,
}

impl Emulator {
    /// What a running control plane needs, and nothing that starts programs on this machine for whoever asks.
    pub const RUN_SERVICES: &'static str = "sqs,s3,secretsmanager,kms,sts";

    pub fn new(env: &PythonEnv, dir: PathBuf, port: u16, services: Option<&'static str>) -> Self {
        Self { python: env.program("python"), dir, port, services, variables: BTreeMap::new() }
    }

    /// With one more variable in its environment, which the functions that it runs inherit.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.insert(name, value.into());
        self
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts the emulator and waits until it answers.
    pub async fn start(&self, log: &Path, ledger: &Ledger) -> Result<Process> {
        let temporary = self.dir.join("tmp");
        fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
        let program = self.dir.join("emulator.py");
        fs::write(&program, PROGRAM).with_context(|| format!("cannot write {}", program.display()))?;
        let mut command = Command::new(&self.python);
        command.arg(program).current_dir(&self.dir);
        process::keep_back(&mut command);
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
        command.envs(&self.variables);
        let probe = Probe { url: format!("{}/_ministack/health", self.url()), status: StatusCode::OK };
        server::start_http("emulator", command, ENDING, &probe, log, ledger).await
    }
}
