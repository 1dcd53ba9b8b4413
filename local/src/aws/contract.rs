//! The servers that the contract suite compares with the local stack's emulator: LocalStack in host mode, with the
//! hooks that its container runs, and an S3 server with its own keys and region, like Supabase Storage.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rustix::process::Signal;
use tokio::process::Command;
use uuid::Uuid;

use crate::aws::resources;
use crate::checkout::Checkout;
use crate::process::server::{self, Probe};
use crate::process::{self, PidFile, Process, Termination};
use crate::tools::python::{CONTRACT, PythonEnv};
use crate::{port, report};

/// The region of Supabase Storage on a laptop.
pub const S3_REGION: &str = "local";
const TERMINATION: Termination = Termination::new(Signal::TERM, Duration::from_secs(5));

/// The running servers.
#[derive(Debug)]
pub struct Contract {
    localstack: Process,
    s3: Process,
    /// Variables with their addresses, for the tests.
    pub variables: [(&'static str, String); 4],
}

impl Contract {
    /// Starts both servers, with their files below `dir`.
    pub async fn start(checkout: &Checkout, dir: &Path, pid_file: &PidFile) -> Result<Self> {
        let env = PythonEnv::of(CONTRACT, checkout, pid_file).await?;
        let logs = dir.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        let start = Instant::now();
        let (localstack_port, s3_port) = (port::any_free()?, port::any_free()?);
        let (id, secret) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
        let (localstack_dir, s3_dir) = (dir.join("localstack"), dir.join("s3"));
        let (localstack, s3) = tokio::try_join!(
            start_localstack(&env, checkout, &localstack_dir, localstack_port, &logs, pid_file),
            start_s3(&env, &s3_dir, s3_port, [&id, &secret], &logs, pid_file),
        )?;
        let what = format_args!("SQS, S3, Secrets Manager on 127.0.0.1:{localstack_port}");
        report::took("localstack", what, start.elapsed());
        Ok(Self {
            localstack,
            s3,
            variables: [
                ("NOFX_TEST_LOCALSTACK_ENDPOINT_URL", format!("http://127.0.0.1:{localstack_port}")),
                ("NOFX_TEST_S3_ENDPOINT_URL", format!("http://127.0.0.1:{s3_port}")),
                ("NOFX_TEST_S3_ACCESS_KEY_ID", id),
                ("NOFX_TEST_S3_SECRET_ACCESS_KEY", secret),
            ],
        })
    }

    pub async fn stop(self) {
        tokio::join!(self.localstack.end(), self.s3.end());
    }
}

async fn start_localstack(
    env: &PythonEnv,
    checkout: &Checkout,
    dir: &Path,
    port: u16,
    logs: &Path,
    pid_file: &PidFile,
) -> Result<Process> {
    let temporary = new_dir(dir, "tmp")?;
    // The path of the hooks in the container, below FILESYSTEM_ROOT.
    let hooks = new_dir(dir, "etc/localstack")?.join("init");
    symlink(checkout.localstack().join("init"), &hooks).with_context(|| format!("cannot link {}", hooks.display()))?;
    let mut command = python(env, dir);
    let address = format!("127.0.0.1:{port}");
    command
        .args(["-m", "localstack.runtime.main"])
        .env("GATEWAY_LISTEN", &address)
        .env("GATEWAY_SERVER", "hypercorn")
        // Queue URLs that need no DNS.
        .env("LOCALSTACK_HOST", &address)
        .env("SQS_ENDPOINT_STRATEGY", "path")
        .env("SERVICES", "sqs,s3,secretsmanager")
        .envs([resources::hook_variable()])
        // If these tests run in a container, LocalStack must not take it for its own and use other folders.
        .env("OVERRIDE_IN_DOCKER", "0")
        // Send no usage reports, download no certificate, and start no DNS server.
        .env("DISABLE_EVENTS", "1")
        .env("SKIP_SSL_CERT_DOWNLOAD", "1")
        .env("DNS_ADDRESS", "0")
        .env("FILESYSTEM_ROOT", dir)
        .env("HOME", dir)
        .env("TMPDIR", temporary)
        .env("LS_LOG", "warning");
    let probe = Probe { url: format!("http://{address}/_localstack/health"), status: StatusCode::OK };
    server::start_http("localstack", command, TERMINATION, &probe, &logs.join("localstack.log"), pid_file).await
}

async fn start_s3(
    env: &PythonEnv,
    dir: &Path,
    port: u16,
    [id, secret]: [&str; 2],
    logs: &Path,
    pid_file: &PidFile,
) -> Result<Process> {
    let data = new_dir(dir, "data")?;
    let mut command = python(env, dir);
    command
        .args(["-m", "nanio", "serve", "--host", "127.0.0.1", "--region", S3_REGION, "--no-access-log"])
        .args(["--port", &port.to_string(), "--data-dir"])
        .arg(data)
        .env("NANIO_ACCESS_KEY", id)
        .env("NANIO_SECRET_KEY", secret);
    // It is ready when it refuses an unsigned request.
    let probe = Probe { url: format!("http://127.0.0.1:{port}/"), status: StatusCode::FORBIDDEN };
    server::start_http("s3", command, TERMINATION, &probe, &logs.join("s3.log"), pid_file).await
}

fn python(env: &PythonEnv, dir: &Path) -> Command {
    let mut command = Command::new(env.program("python"));
    process::clear_inherited_env(&mut command);
    command.current_dir(dir).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
    command
}

fn new_dir(dir: &Path, below: &str) -> Result<PathBuf> {
    let path = dir.join(below);
    fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}
