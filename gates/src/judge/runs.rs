//! Has a runner run jobs, and reads what it answers.

use std::sync::Arc;
use std::time::Instant;

use super::conclude::{Context, Observed, observe};
use super::request::{Runner, RunnerLost};
use super::{Case, Stop, Work};
use crate::blocking::spawn_blocking;
use crate::coverage::{ChangeSet, CoverageError};
use crate::definition::GateDefinition;
use crate::finding::{InfraError, Reason};
use crate::run::{Bundle, CommandRun, Job};

impl<R: Runner> Work<'_, R> {
    /// Has a job run and records what the runner says about it.
    pub(super) async fn run_once(&self, job: Job, case: &mut Case) -> Result<(CommandRun, Arc<Bundle>), Stop> {
        let started = Instant::now();
        let bundle = self.runner.run(&self.request.workspace, job).await?;
        case.took("runner", started);
        case.record_result(&bundle);
        if let Some(stopped) = &bundle.result.stopped {
            let code = known_code(&stopped.code);
            return Err(if stopped.retryable {
                InfraError::new(code, stopped.message.clone()).into()
            } else {
                Reason::new(code, stopped.message.clone()).into()
            });
        }
        let Some(run) = bundle.result.runs.first().cloned() else {
            return Err(RunnerLost::ended("its bundle has no run").into());
        };
        case.attach_log(&run, &bundle);
        Ok((run, Arc::new(bundle)))
    }

    pub(super) async fn observe(
        &self,
        gate: &GateDefinition,
        run: CommandRun,
        bundle: Arc<Bundle>,
        changes: Option<Result<ChangeSet, CoverageError>>,
    ) -> Result<Observed, Stop> {
        let (subject, gate, options) = (Arc::clone(&self.subject), gate.clone(), self.options(gate));
        let observed = spawn_blocking(move || {
            let paths = subject.head.files().keys().map(String::as_str).collect();
            let context = Context { gate: &gate, paths, changes: changes.as_ref(), coverage: options };
            observe(&run, &bundle, &context)
        });
        Ok(observed.await.map_err(InfraError::task_failed)?)
    }
}

/// The runner's text comes from another process, so only codes that we know are taken over.
pub fn known_code(code: &str) -> &'static str {
    const CODES: [&str; 19] = [
        "archive_refused",
        "archive_unavailable",
        "command_not_started",
        "disk_full",
        "gate_stopped",
        "install_failed",
        "install_timed_out",
        "launcher_died",
        "lockfile_refused",
        "manifest_refused",
        "no_lockfile",
        "nothing_checked",
        "registry_unavailable",
        "report_unreadable",
        "sandbox_failed",
        "sandbox_too_weak",
        "stub_failed",
        "tool_shadowed",
        "toolchain_missing",
    ];
    CODES.into_iter().find(|known| *known == code).unwrap_or("work_folder_unavailable")
}
