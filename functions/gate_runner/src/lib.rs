//! Fetches the workspace of a request, runs its command, and stores the bundle.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nofx_gates::MAX_PACKED_BYTES;
use nofx_gates::run::{Bundle, Executor, Location, RunAnswer, RunSpec, RunnerSettings, Stopped};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use sha2::{Digest, Sha256};
use shared::config::RunnerConfig;
use shared::domain::digest::{hex, sha256_hex};
use tokio::fs;

const TRANSFER_LIMIT: Duration = Duration::from_mins(2);

/// Serves requests one after the other, or concurrently.
#[derive(Debug)]
pub struct Runner {
    executor: Executor,
    /// Made at its first use: it reads all certificates of the system, and files need none.
    http: LazyLock<Client>,
}

impl Runner {
    pub fn new(config: &RunnerConfig) -> Self {
        let mut settings = RunnerSettings::new(config.work_dir.clone());
        settings.npm_user_config.clone_from(&config.npm_user_config);
        if let Some(path) = &config.search_path {
            settings.add_toolchains_of(path);
        }
        // A signed URL is for one object: a redirect would lead elsewhere.
        let http = || Client::builder().redirect(Policy::none()).no_proxy().build().unwrap_or_default();
        Self { executor: Executor::new(settings), http: LazyLock::new(http) }
    }

    /// Runs one command. Whatever happens to it is in the bundle. An error means that there is no bundle.
    pub async fn run(&self, spec: RunSpec) -> Result<RunAnswer> {
        let archive = if spec.job.is_probe() { Ok(Vec::new()) } else { self.fetch(&spec).await };
        let bundle = match archive {
            Ok(archive) => self.executor.execute(&spec.job, Arc::new(archive)).await,
            Err(error) => stopped("archive_unavailable", format!("the runner cannot read the workspace: {error:#}")),
        };
        if nofx_gates::run::must_end(&bundle) {
            // The judge sees that its runner is lost. Lambda, or whoever started this process, starts a new one.
            tracing::error!("the sandbox died; this process ends, so that nothing of the command outlives it");
            std::process::exit(1);
        }
        let bytes = bundle.pack().context("cannot pack the bundle")?;
        let answer = RunAnswer { sha256: sha256_hex(&bytes), size_bytes: bytes.len() as u64 };
        self.store(&spec.bundle, bytes).await?;
        Ok(answer)
    }

    async fn fetch(&self, spec: &RunSpec) -> Result<Vec<u8>> {
        let archive = match &spec.archive {
            Location::File(path) => read_file(path).await?,
            Location::Url { url, headers } => {
                let mut request = self.http.get(checked(url)?).timeout(TRANSFER_LIMIT);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                // The URL holds a signature, so errors do not show it.
                let mut answer = request.send().await.map_err(reqwest::Error::without_url)?;
                if !answer.status().is_success() {
                    bail!("storage answered {}", answer.status());
                }
                let mut bytes = Vec::new();
                while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() as u64 > MAX_PACKED_BYTES {
                        bail!("the archive has more than {MAX_PACKED_BYTES} bytes");
                    }
                }
                bytes
            }
        };
        if hex(&Sha256::digest(&archive)) != spec.archive_sha256 {
            bail!("the archive's sha256 is not that of the request");
        }
        Ok(archive)
    }

    async fn store(&self, bundle: &Location, bytes: Vec<u8>) -> Result<()> {
        match bundle {
            Location::File(path) => fs::write(path, bytes).await.context("cannot write the bundle"),
            Location::Url { url, headers } => {
                let mut request = self.http.put(checked(url)?).timeout(TRANSFER_LIMIT).body(bytes);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let answer = request.send().await.map_err(reqwest::Error::without_url)?;
                if !answer.status().is_success() {
                    bail!("storage refused the bundle: {}", answer.status());
                }
                Ok(())
            }
        }
    }
}

fn stopped(code: &str, message: String) -> Bundle {
    let mut bundle = Bundle::default();
    bundle.result.stopped = Some(Stopped { code: code.into(), message, retryable: true });
    bundle
}

async fn read_file(path: &Path) -> Result<Vec<u8>> {
    let size = fs::metadata(path).await.context("cannot read the archive")?.len();
    if size > MAX_PACKED_BYTES {
        bail!("the archive has more than {MAX_PACKED_BYTES} bytes");
    }
    fs::read(path).await.context("cannot read the archive")
}

/// Only `https`, or `http` on the loopback interface.
fn checked(url: &str) -> Result<Url> {
    let url = Url::parse(url).ok().context("a URL of the request is invalid")?;
    let is_local = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
    if url.scheme() == "https" || (url.scheme() == "http" && is_local) {
        return Ok(url);
    }
    bail!("a URL of the request is neither https nor on this machine")
}
