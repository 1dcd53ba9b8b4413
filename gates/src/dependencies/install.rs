//! Runs the installers.
//!
//! An installer has the network and the operator's credentials for packages, so it gets nothing of the workspace but the
//! vetted files, and runs no package's code. It runs in the sandbox, because it unpacks what strangers have packed.

mod caches;
mod command;
mod left;
mod operator;
pub(super) mod sandboxed;
mod versions;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nofx_sandbox::{Exit, Host};
use shared::domain::digest::{canonical_sha256, sha256_hex};
use tokio::sync::OnceCell;

use super::attach::is_real_folder;
use super::programs::Toolchain;
use super::store::{Begun, Held, Slot, Store, make_read_only};
use super::{Ecosystem, InstallPlan, Registries, verify};
use crate::blocking::spawn_blocking;
use crate::finding::{ExamineError, InfraError, Reason, error_lines};

pub use command::HOME;

use caches::Caches;
use command::Context;
use sandboxed::{Ran, Writable, failure};

/// Raise it if installations of this version cannot be used any more.
const FORMAT: u32 = 1;

#[derive(Debug, Clone)]
pub struct InstallSettings {
    /// Complete installations. Tested code must not be able to write to it.
    pub store: PathBuf,
    /// Download caches of the installers, on the same disk. Tested code must not be able to write to it.
    pub caches: PathBuf,
    /// Where the programs are.
    pub search_path: String,
    /// What of the system the programs need. They see nothing else.
    pub read_only: Vec<PathBuf>,
    /// Variables that the programs need, such as `RUSTUP_HOME`.
    pub environment: Vec<(String, String)>,
    /// npm's user settings: the registry and its credentials. Tested code must not be able to read it.
    pub npm_user_config: Option<PathBuf>,
    /// pip's settings, likewise.
    pub pip_config: Option<PathBuf>,
    pub timeout: Duration,
    /// How many installations to keep.
    pub max_installs: usize,
    /// What the sandbox may use of the host at most.
    pub at_most: Option<Host>,
}

/// Installs dependencies, one ecosystem's at a time. Attempts and processes may share a store.
#[derive(Debug)]
pub struct Installer {
    pub(super) settings: InstallSettings,
    registries: Registries,
    store: Store,
    caches: Caches,
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

impl Installer {
    pub fn new(settings: InstallSettings) -> Self {
        let npmrc = settings.npm_user_config.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let registries = Registries::read(&npmrc.unwrap_or_default());
        let store = Store::new(settings.store.clone(), settings.max_installs);
        // Before any command runs, which may get the uid of an installer that was killed.
        if let Err(error) = store.clear() {
            tracing::warn!(%error, "installations that were not completed were not deleted");
        }
        let caches = Caches::new(settings.caches.clone());
        Self { settings, registries, store, caches, toolchains: Default::default() }
    }

    /// The registries whose addresses a lock file may have.
    pub fn registries(&self) -> &Registries {
        &self.registries
    }

    /// The programs of an ecosystem, asked for their versions once per process.
    pub async fn toolchain(&self, ecosystem: Ecosystem) -> Result<&Toolchain, ExamineError> {
        let at = Ecosystem::ALL.iter().position(|known| *known == ecosystem).unwrap_or_default();
        let cell = self.toolchains.get(at).ok_or_else(|| InfraError::new("gate_stopped", "an unknown ecosystem"))?;
        cell.get_or_try_init(|| versions::toolchain(ecosystem, &self.settings)).await
    }

    /// Finds the installation of this plan or makes it.
    pub async fn install(&self, plan: &InstallPlan, request: InstallRequest) -> Result<Installed, ExamineError> {
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

    async fn publish(&self, slot: Slot, key: &str) -> Result<Held, ExamineError> {
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
    ) -> Result<(), ExamineError> {
        let deadline = Instant::now() + request.timeout.min(self.settings.timeout);
        // Elsewhere than in the store tested code might write to a cache.
        let has_cache =
            matches!(request.place, Place::Store) && matches!(plan.ecosystem, Ecosystem::Npm | Ecosystem::Pip);
        let tenant = has_cache.then(|| request.tenant.clone());
        let calls =
            self.prepare(plan, toolchain, (folder, target), tenant.clone(), |context| context.commands(plan)).await?;
        let writable = Writable::give(folder, &self.settings).await?;
        let mut failed = None;
        for call in calls {
            let ran = writable.run(call, (plan, toolchain), &self.settings, deadline, None).await?;
            if ran.exit != Exit::Code(0) {
                failed = Some(ran);
                break;
            }
        }
        writable.take_back().await?;
        self.clear(plan.ecosystem, folder, tenant).await?;
        if let Some(ran) = failed {
            return Err(classify(plan.ecosystem, &ran));
        }
        let program = toolchain.programs.get("python3").cloned();
        let (plan, folder, target) = (plan.clone(), folder.to_path_buf(), target.to_path_buf());
        let verified = spawn_blocking(move || {
            left::check(&folder, program.as_deref())?;
            command::finish(plan.ecosystem, &folder, &target)?;
            match plan.ecosystem {
                Ecosystem::Npm => verify::npm(&plan, &folder),
                Ecosystem::Pip => verify::pip(&plan, &folder.join("venv")),
                Ecosystem::Cargo => verify::cargo(&plan, &folder.join("home")),
                Ecosystem::Go => Ok(()),
            }
        });
        verified.await.map_err(InfraError::task_failed)?
    }

    /// Writes what the programs need into an empty folder, and says what to run.
    pub(super) async fn prepare<T>(
        &self,
        plan: &InstallPlan,
        toolchain: &Toolchain,
        (folder, target): (&Path, &Path),
        tenant: Option<String>,
        calls: impl FnOnce(&Context) -> Result<T, Reason>,
    ) -> Result<T, ExamineError> {
        let (of, into, settings, programs) =
            (plan.clone(), folder.to_path_buf(), self.settings.clone(), toolchain.clone());
        let caches = self.caches.clone();
        let named = blocking(move || {
            command::write_files(&of, &into)?;
            if let Some(tenant) = tenant {
                caches.lend(of.ecosystem, &tenant, &command::cache(&into))?;
            }
            operator::copy(of.ecosystem, &settings, &programs, &command::home(&into))
        });
        let named = named.await?;
        let (settings, registries) = (&self.settings, &self.registries);
        Ok(calls(&Context { settings, registries, toolchain, folder, target, named: &named })?)
    }

    /// Removes what only the programs needed. Keeps their cache, if it is a tenant's.
    async fn clear(&self, ecosystem: Ecosystem, folder: &Path, tenant: Option<String>) -> Result<(), ExamineError> {
        let (caches, folder) = (self.caches.clone(), folder.to_path_buf());
        blocking(move || {
            let home = command::home(&folder);
            // An installer may have put links in the place of its folders.
            if let Some(tenant) = tenant
                && is_real_folder(&folder, HOME)
            {
                let kept = caches.put_back(ecosystem, &tenant, &command::cache(&folder), &home);
                if let Err(error) = kept {
                    tracing::warn!(%error, "the download cache was not kept");
                }
            }
            crate::attempt::remove(&home)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, ExamineError> {
    Ok(spawn_blocking(work).await.map_err(InfraError::task_failed)??)
}

/// Separates failures that a retry may fix from those that the workspace must fix.
fn classify(ecosystem: Ecosystem, ran: &Ran) -> ExamineError {
    let output = ran.text();
    if ["ENOSPC", "No space left on device"].iter().any(|sign| output.contains(sign)) {
        return InfraError::new("disk_full", "the disk of the gate is full").into();
    }
    if ran.exit == Exit::TimedOut {
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
    let message = format!("{}:\n{}", failure(installer, &ran.exit), error_lines(&output));
    Reason::new("install_failed", message).into()
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
