//! Runs the installers.
//!
//! An installer has the network and the operator's credentials, so it gets nothing of the workspace but the vetted files,
//! and runs no package's code.

mod command;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::domain::digest::{canonical_sha256, sha256_hex};
use tokio::sync::OnceCell;

use super::programs::Toolchain;
use super::store::{Begun, Held, Slot, Store, make_read_only};
use super::{Ecosystem, InstallPlan, Registries, verify};
use crate::blocking::spawn_blocking;
use crate::finding::{ExamineError, InfraError, Reason, error_lines};
use crate::process::{self, Command, CommandResult, Exit};

use command::Context;

/// Raise it if installations of this version cannot be used any more.
const FORMAT: u32 = 1;

#[derive(Debug, Clone)]
pub struct InstallSettings {
    /// Complete installations. Tested code must not be able to write to it.
    pub store: PathBuf,
    /// Download caches of the installers. Tested code must not be able to write to it.
    pub caches: PathBuf,
    /// Where the programs are.
    pub search_path: String,
    /// Variables that the programs need, such as `RUSTUP_HOME`.
    pub environment: Vec<(String, String)>,
    /// npm's user settings: the registry and its credentials. Tested code must not be able to read it.
    pub npm_user_config: Option<PathBuf>,
    /// pip's settings, likewise.
    pub pip_config: Option<PathBuf>,
    pub timeout: Duration,
    /// How many installations to keep.
    pub max_installs: usize,
}

/// Installs dependencies, one ecosystem's at a time. Attempts and processes may share a store.
#[derive(Debug)]
pub struct Installer {
    settings: InstallSettings,
    registries: Registries,
    store: Store,
    /// By ecosystem, in the order of [`Ecosystem::ALL`].
    toolchains: [OnceCell<Toolchain>; 4],
}

/// Where an installation goes.
#[derive(Debug, Clone)]
pub enum Place {
    /// Into the store, for this and later attempts. Only if tested code can never write there.
    Store,
    /// Into this folder of the attempt, which must not exist.
    Folder(PathBuf),
}

#[derive(Debug, Clone)]
pub struct InstallRequest {
    /// Tenants do not share installations.
    pub tenant: String,
    /// Unique to the attempt.
    pub tag: String,
    pub timeout: Duration,
    pub place: Place,
}

/// Installed dependencies. A stored installation is not deleted while this exists.
#[derive(Debug)]
pub struct Installed {
    pub ecosystem: Ecosystem,
    pub folder: PathBuf,
    /// sha256 over all that decides the content.
    pub key: String,
    /// An earlier attempt has installed them.
    pub stored: bool,
    pub took: Duration,
    pub toolchain: Toolchain,
    _held: Option<Held>,
}

#[derive(Debug)]
pub enum InstallError {
    /// The workspace is at fault. With the installer's output, if it ran.
    Refused(Reason, Option<Box<CommandResult>>),
    Infra(InfraError),
}

impl From<InfraError> for InstallError {
    fn from(error: InfraError) -> Self {
        Self::Infra(error)
    }
}

impl From<io::Error> for InstallError {
    fn from(error: io::Error) -> Self {
        Self::Infra(error.into())
    }
}

impl From<Reason> for InstallError {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason, None)
    }
}

impl From<ExamineError> for InstallError {
    fn from(error: ExamineError) -> Self {
        match error {
            ExamineError::GateFailed(reason) => reason.into(),
            ExamineError::Infra(error) => error.into(),
        }
    }
}

impl Installer {
    pub fn new(settings: InstallSettings) -> Self {
        let npmrc = settings.npm_user_config.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let registries = Registries::read(&npmrc.unwrap_or_default());
        let store = Store::new(settings.store.clone(), settings.max_installs);
        Self { settings, registries, store, toolchains: Default::default() }
    }

    /// The registries whose addresses a lock file may have.
    pub fn registries(&self) -> &Registries {
        &self.registries
    }

    /// The programs of an ecosystem, asked for their versions once per process.
    pub async fn toolchain(&self, ecosystem: Ecosystem) -> Result<&Toolchain, InstallError> {
        let at = Ecosystem::ALL.iter().position(|known| *known == ecosystem).unwrap_or_default();
        let cell = self.toolchains.get(at).ok_or_else(|| InfraError::new("gate_stopped", "an unknown ecosystem"))?;
        cell.get_or_try_init(|| command::toolchain(ecosystem, &self.settings)).await
    }

    /// Finds the installation of this plan or makes it.
    pub async fn install(&self, plan: &InstallPlan, request: InstallRequest) -> Result<Installed, InstallError> {
        let started = Instant::now();
        let toolchain = self.toolchain(plan.ecosystem).await?.clone();
        let key = self.key(plan, &toolchain, &request.tenant)?;
        let installed = |folder, stored, held| Installed {
            ecosystem: plan.ecosystem,
            folder,
            key: key.clone(),
            stored,
            took: started.elapsed(),
            toolchain: toolchain.clone(),
            _held: held,
        };
        if let Place::Folder(folder) = &request.place {
            fs::create_dir(folder)?;
            self.fill(plan, &toolchain, folder, folder, &request).await?;
            let target = folder.clone();
            blocking(move || make_read_only(&target)).await?;
            return Ok(installed(folder.clone(), false, None));
        }
        let (store, of) = (self.store.clone(), key.clone());
        if let Some(held) = blocking(move || store.find(&of)).await? {
            return Ok(installed(held.folder.clone(), true, Some(held)));
        }
        let (store, of) = (self.store.clone(), key.clone());
        let slot = match blocking(move || store.begin(&of)).await? {
            Begun::Complete(held) => return Ok(installed(held.folder.clone(), true, Some(held))),
            Begun::Empty(slot) => slot,
        };
        self.fill(plan, &toolchain, &slot.folder, &self.store.path(&key), &request).await?;
        let held = self.publish(slot, &key).await?;
        Ok(installed(held.folder.clone(), false, Some(held)))
    }

    /// Writes the files of a plan into a new folder, and says how to audit them there.
    pub(super) async fn audit_command(
        &self,
        plan: &InstallPlan,
        folder: &Path,
    ) -> Result<(Vec<String>, Vec<(String, String)>), InstallError> {
        let toolchain = self.toolchain(plan.ecosystem).await?;
        fs::create_dir(folder)?;
        let (of, into) = (plan.clone(), folder.to_path_buf());
        blocking(move || command::write_files(&of, &into)).await?;
        let context =
            Context { settings: &self.settings, registries: &self.registries, toolchain, folder, target: folder };
        Ok(context.audit(plan)?)
    }

    async fn publish(&self, slot: Slot, key: &str) -> Result<Held, InstallError> {
        let (store, key) = (self.store.clone(), key.to_owned());
        blocking(move || {
            let held = slot.publish(&store, &key)?;
            if let Err(error) = store.evict() {
                tracing::warn!(%error, "old installations were not deleted");
            }
            Ok(held)
        })
        .await
    }

    /// Equal keys mean equal content.
    fn key(&self, plan: &InstallPlan, toolchain: &Toolchain, tenant: &str) -> Result<String, InfraError> {
        let files: BTreeMap<&String, String> = plan.files.iter().map(|(path, text)| (path, sha256_hex(text))).collect();
        let platform = (std::env::consts::OS, std::env::consts::ARCH);
        let (default, scopes) = (&self.registries.default, &self.registries.scopes);
        let from = (default, scopes, plan.legacy_peer_deps);
        let parts = (FORMAT, plan.ecosystem, files, from, &toolchain.versions, platform, tenant);
        canonical_sha256(&parts).map_err(|error| InfraError::new("gate_stopped", error.to_string()))
    }

    /// Installs into `folder`, which gets the name `target` later.
    async fn fill(
        &self,
        plan: &InstallPlan,
        toolchain: &Toolchain,
        folder: &Path,
        target: &Path,
        request: &InstallRequest,
    ) -> Result<(), InstallError> {
        let timeout = request.timeout.min(self.settings.timeout);
        let deadline = Instant::now() + timeout;
        let plan = Arc::new(plan.clone());
        let (of, into) = (Arc::clone(&plan), folder.to_path_buf());
        blocking(move || command::write_files(&of, &into)).await?;
        let context = Context { settings: &self.settings, registries: &self.registries, toolchain, folder, target };
        for (argv, environment) in context.commands(&plan)? {
            let timeout = deadline.saturating_duration_since(Instant::now());
            let result =
                run_in(argv, &plan, folder, environment, &InstallRequest { timeout, ..request.clone() }).await?;
            if result.exit != Exit::Code(0) {
                return Err(classify(plan.ecosystem, result));
            }
        }
        let (folder, target) = (folder.to_path_buf(), target.to_path_buf());
        let verified = spawn_blocking(move || {
            command::finish(plan.ecosystem, &folder, &target)?;
            match plan.ecosystem {
                Ecosystem::Npm => verify::npm(&plan, &folder),
                Ecosystem::Pip => verify::pip(&plan, &folder.join("venv")),
                Ecosystem::Cargo => verify::cargo(&plan, &folder.join("home")),
                Ecosystem::Go => Ok(()),
            }
        });
        Ok(verified.await.map_err(InfraError::task_failed)??)
    }
}

/// Runs a program of the ecosystem beside the manifest and the lock file.
pub(super) async fn run_in(
    argv: Vec<String>,
    plan: &InstallPlan,
    folder: &Path,
    environment: Vec<(String, String)>,
    request: &InstallRequest,
) -> Result<CommandResult, InfraError> {
    let command = Command {
        argv,
        current_dir: command::sources(plan.ecosystem, folder),
        environment,
        timeout: request.timeout,
        tag: request.tag.clone(),
    };
    run(&command).await
}

/// The one place that starts an installer.
async fn run(command: &Command) -> Result<CommandResult, InfraError> {
    Ok(process::run(command).await?)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, InstallError> {
    Ok(spawn_blocking(work).await.map_err(InfraError::task_failed)??)
}

/// Separates failures that a retry may fix from those that the workspace must fix.
fn classify(ecosystem: Ecosystem, result: CommandResult) -> InstallError {
    let output = result.output.tail();
    if ["ENOSPC", "No space left on device"].iter().any(|sign| output.contains(sign)) {
        return InfraError::new("disk_full", "the disk of the gate is full").into();
    }
    if result.exit == Exit::TimedOut {
        return InfraError::new("install_timed_out", "installing the dependencies timed out").into();
    }
    if is_network_failure(ecosystem, &output) {
        return InfraError::new("registry_unavailable", "the package registry cannot be reached").into();
    }
    let installer = match ecosystem {
        Ecosystem::Npm => "npm ci",
        Ecosystem::Pip => "pip install",
        Ecosystem::Cargo => "cargo fetch",
        Ecosystem::Go => "go mod download",
    };
    let message = format!("{installer} failed:\n{}", error_lines(&output));
    InstallError::Refused(Reason::new("install_failed", message), Some(Box::new(result)))
}

fn is_network_failure(ecosystem: Ecosystem, output: &str) -> bool {
    const NPM: [&str; 22] = [
        "ENOTFOUND",
        "EAI_AGAIN",
        "ECONNREFUSED",
        "ECONNRESET",
        "ETIMEDOUT",
        "EHOSTUNREACH",
        "ENETUNREACH",
        "EPIPE",
        "ERR_SOCKET_TIMEOUT",
        "EIDLETIMEOUT",
        "E408",
        "E429",
        "E500",
        "E502",
        "E503",
        "E504",
        "CERT_HAS_EXPIRED",
        "DEPTH_ZERO_SELF_SIGNED_CERT",
        "ERR_TLS_CERT_ALTNAME_INVALID",
        "SELF_SIGNED_CERT_IN_CHAIN",
        "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
        "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    ];
    const PIP: [&str; 7] = [
        "NewConnectionError",
        "Max retries exceeded",
        "ReadTimeoutError",
        "ConnectTimeoutError",
        "Connection aborted",
        "Connection broken",
        "CERTIFICATE_VERIFY_FAILED",
    ];
    const CARGO: [&str; 7] = [
        "Could not resolve host",
        "Couldn't connect to server",
        "Could not connect to server",
        "spurious network error",
        "SSL peer certificate",
        "Timeout was reached",
        "failed to get successful HTTP response",
    ];
    const GO: [&str; 4] = ["connection refused", "no such host", "i/o timeout", "Service Unavailable"];
    let contains = |signs: &[&str]| signs.iter().any(|sign| output.contains(sign));
    match ecosystem {
        Ecosystem::Npm => output
            .lines()
            .filter_map(|line| line.strip_prefix("npm error code "))
            .any(|code| NPM.contains(&code.trim())),
        Ecosystem::Pip => contains(&PIP),
        Ecosystem::Cargo => contains(&CARGO),
        Ecosystem::Go => contains(&GO),
    }
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
