//! Runs a job: install the dependencies, then for each variant unpack the workspace, run the command in a sandbox and
//! collect its reports.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nofx_sandbox as sandbox;

use super::audit::audit;
use super::bundle::Bundle;
use super::command::{Project, Run};
use super::convert::{add, left};
use super::settings::RunnerSettings;
use super::spec::{InstallResult, Job, Stopped, millis};
use crate::attempt::{Attempt, CancelOnDrop, private_folder};
use crate::blocking::spawn_blocking;
use crate::dependencies::{self, InstallPlan, InstallRequest, Installed, Installer, Place, Toolchain};
use crate::finding::{ExamineError, InfraError, LAUNCHER_DIED, Reason};
use crate::snapshot::Snapshot;
use crate::unpack::{WorkspaceError, unpack};

/// Whether the process that ran this job must end now, because nobody knows whether something of the command still runs.
pub fn must_end(bundle: &Bundle) -> bool {
    bundle.result.stopped.as_ref().is_some_and(|stopped| stopped.code == LAUNCHER_DIED)
}

/// Time that is left for collecting and packing.
const RESERVE: Duration = Duration::from_secs(5);

/// Runs jobs, one after the other or concurrently.
#[derive(Debug)]
pub struct Executor {
    settings: RunnerSettings,
    installer: Installer,
    /// What commands may read of the system.
    tools: sandbox::Toolchain,
}

impl Executor {
    pub fn new(settings: RunnerSettings) -> Self {
        let installer = Installer::new(settings.installs());
        let tools = sandbox::toolchain(OsStr::new(&settings.search_path));
        Self { settings, installer, tools }
    }

    /// Runs a job. Whatever happens is in the bundle.
    pub async fn execute(&self, job: &Job, archive: Arc<Vec<u8>>) -> Bundle {
        let mut bundle = Bundle::default();
        env!("CARGO_PKG_VERSION").clone_into(&mut bundle.result.runner);
        if let Err(stop) = self.run(job, archive, &mut bundle).await {
            let (code, message, retryable) = match stop {
                ExamineError::GateFailed(reason) => (reason.code, reason.message, false),
                ExamineError::Infra(error) => (error.code, error.message, true),
            };
            bundle.result.stopped = Some(Stopped { code: code.to_owned(), message, retryable });
        }
        bundle
    }

    async fn run(&self, job: &Job, archive: Arc<Vec<u8>>, bundle: &mut Bundle) -> Result<(), ExamineError> {
        if job.is_probe() {
            return self.probe(job, bundle).await;
        }
        let deadline = Instant::now() + Duration::from_millis(job.timeout_ms).saturating_sub(RESERVE);
        // The first look at the host builds a sandbox, which takes tens of milliseconds. Meanwhile the disk is busy.
        spawn_blocking(sandbox::host);
        let work_dir = self.settings.work_dir.clone();
        let attempt = spawn_blocking(move || Attempt::begin(&work_dir)).await.map_err(InfraError::task_failed)??;
        let attempt = Arc::new(attempt);
        let cancel_on_drop = CancelOnDrop(Arc::clone(&attempt));
        let result = self.run_variants(job, &archive, &attempt, deadline, bundle).await;
        drop(cancel_on_drop);
        // Deleting thousands of files blocks, so use another thread.
        let _ = spawn_blocking(move || drop(attempt)).await;
        result
    }

    /// Says what the job would run with.
    async fn probe(&self, job: &Job, bundle: &mut Bundle) -> Result<(), ExamineError> {
        spawn_blocking(sandbox::host).await.map_err(InfraError::task_failed)?;
        self.host().level().name().clone_into(&mut bundle.result.sandbox);
        record(self.toolchain(job).await?, bundle);
        Ok(())
    }

    /// The programs of the job's ecosystem. They are asked once for their versions.
    async fn toolchain(&self, job: &Job) -> Result<Option<&Toolchain>, ExamineError> {
        let Some(ecosystem) = job.ecosystem else { return Ok(None) };
        self.installer.toolchain(ecosystem).await.map(Some)
    }

    /// What the sandbox may use of the host.
    fn host(&self) -> &sandbox::Host {
        self.settings.at_most.as_ref().unwrap_or_else(|| sandbox::host())
    }

    async fn run_variants(
        &self,
        job: &Job,
        archive: &Arc<Vec<u8>>,
        attempt: &Arc<Attempt>,
        deadline: Instant,
        bundle: &mut Bundle,
    ) -> Result<(), ExamineError> {
        let mut project = None;
        for (index, variant) in job.variants.iter().enumerate() {
            let started = Instant::now();
            let workspace = attempt.variant(index);
            let unpacked = self.unpack(archive, &workspace, &variant.edits, attempt);
            let (unpacked, toolchain) = tokio::join!(unpacked, self.toolchain(job));
            unpacked?;
            add(&mut bundle.result.timings_ms, "unpack", started.elapsed());
            if index == 0 {
                record(toolchain?, bundle);
                let started = Instant::now();
                let plan = self.plan(job, &workspace)?;
                if job.audit {
                    let folder = attempt.temporary().join("audit");
                    let nothing =
                        || Reason::new("nothing_checked", "the workspace has no locked dependencies to audit");
                    let (plan, _) = plan.ok_or_else(nothing)?;
                    return audit(&self.installer, &plan, (&workspace, &folder), left(deadline), bundle).await;
                }
                if let Some((plan, folder)) = plan {
                    let installed = self.install(job, &plan, attempt, deadline, bundle).await?;
                    project = Some(Project { folder, installed });
                    add(&mut bundle.result.timings_ms, "install", started.elapsed());
                }
            }
            let (settings, tools, project) = (&self.settings, &self.tools, project.as_ref());
            Run { settings, tools, job, variant, index, workspace, attempt, project }.run(deadline, bundle).await?;
        }
        Ok(())
    }

    /// What to install, and for which folder. `None` if the workspace has no locked dependencies.
    fn plan(&self, job: &Job, workspace: &Path) -> Result<Option<(InstallPlan, PathBuf)>, ExamineError> {
        let Some(ecosystem) = job.ecosystem else { return Ok(None) };
        let root = PathBuf::new();
        // A repository with several projects may have none at its root.
        let own = Some(PathBuf::from(&job.command.directory)).filter(|_| !job.audit);
        for folder in [root].into_iter().chain(own) {
            let snapshot = Snapshot::take(&workspace.join(&folder))?;
            if let Some(plan) = dependencies::plan(&snapshot, ecosystem, self.installer.registries())? {
                return Ok(Some((plan, folder)));
            }
        }
        Ok(None)
    }

    async fn unpack(
        &self,
        archive: &Arc<Vec<u8>>,
        to: &Path,
        edits: &BTreeMap<String, String>,
        attempt: &Arc<Attempt>,
    ) -> Result<(), ExamineError> {
        let (archive, to, attempt, limits) =
            (Arc::clone(archive), to.to_path_buf(), Arc::clone(attempt), self.settings.unpack);
        let edits = edits.clone();
        let unpacked = spawn_blocking(move || -> Result<(), ExamineError> {
            private_folder(&to)?;
            unpack(&archive, &to, limits, &|| attempt.check_cancelled()).map_err(|error| match error {
                WorkspaceError::Archive(message) => ExamineError::from(Reason::new("archive_refused", message)),
                WorkspaceError::Workspace(reason) => reason.into(),
                WorkspaceError::Io(error) => error.into(),
            })?;
            for (path, text) in edits {
                fs::write(to.join(path), text)?;
            }
            Ok(())
        });
        unpacked.await.map_err(InfraError::task_failed)?
    }

    /// Installs the dependencies of the workspace, before any of its code runs.
    async fn install(
        &self,
        job: &Job,
        plan: &InstallPlan,
        attempt: &Attempt,
        deadline: Instant,
        bundle: &mut Bundle,
    ) -> Result<Installed, ExamineError> {
        // Tested code can write to whatever its own uid can, unless the sandbox forbids it.
        let place =
            if protects_files(self.host()) { Place::Store } else { Place::Folder(attempt.temporary().join("install")) };
        let request = InstallRequest { tenant: job.tenant.clone(), timeout: left(deadline), place };
        let installed = self.installer.install(plan, request).await?;
        bundle.result.install = Some(InstallResult {
            ecosystem: plan.ecosystem,
            how: if installed.stored { "stored" } else { "fresh" }.to_owned(),
            ms: millis(installed.took),
        });
        Ok(installed)
    }
}

fn record(toolchain: Option<&Toolchain>, bundle: &mut Bundle) {
    bundle.result.toolchain.extend(toolchain.into_iter().flat_map(|toolchain| toolchain.versions.clone()));
}

/// Whether tested code can be kept from writing to files that its own uid owns.
fn protects_files(host: &sandbox::Host) -> bool {
    host.own_uid || host.level() > sandbox::Level::Limits
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
