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
use crate::process::{self, PidFile, Process, Termination};
use crate::tools::python::PythonEnv;

/// Starts MiniStack with long polls that wait for messages. MiniStack's own check ten times a second.
const PROGRAM: &str = include_str!("emulator.py");
/// It saves its state when it stops.
const TERMINATION: Termination = Termination::new(Signal::TERM, Duration::from_secs(10));

/// An emulator with its state below `dir`.
#[derive(Clone, Debug)]
pub struct Emulator {
    python: PathBuf,
    dir: PathBuf,
    port: u16,
    /// The services that it offers. `None` is all of them.
    services: Option<&'static str>,
    variables: BTreeMap<&'static str, String>,
}

impl Emulator {
    /// The services that a running control plane needs. None of them can start programs on this machine.
    pub const RUN_SERVICES: &'static str = "sqs,s3,secretsmanager,kms,sts";

    pub fn new(env: &PythonEnv, dir: PathBuf, port: u16, services: Option<&'static str>) -> Self {
        Self { python: env.program("python"), dir, port, services, variables: BTreeMap::new() }
    }

    /// Adds a variable to its environment. Functions that it runs inherit it.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.insert(name, value.into());
        self
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts the emulator and waits until it answers.
    pub async fn start(&self, log: &Path, pid_file: &PidFile) -> Result<Process> {
        let temporary = self.dir.join("tmp");
        fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
        let program = self.dir.join("emulator.py");
        fs::write(&program, PROGRAM).with_context(|| format!("cannot write {}", program.display()))?;
        let mut command = Command::new(&self.python);
        command.arg(program).current_dir(&self.dir);
        process::clear_inherited_env(&mut command);
        command
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", self.port.to_string())
            .env("AWS_ENDPOINT_URL", self.url())
            .env("PERSIST_STATE", "1")
            .env("STATE_DIR", self.dir.join("state"))
            .env("S3_PERSIST", "1")
            .env("S3_DATA_DIR", self.dir.join("s3"))
            .env("TMPDIR", temporary)
            // These would open other ports.
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
        server::start_http("emulator", command, TERMINATION, &probe, log, pid_file).await
    }
}
