//! Runs one gate: prepare the workspace, install dependencies, run the command, judge the result. Uses neither storage
//! nor database: archives in, evidence out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shared::domain::digest::{hex, sha256_hex};
use tokio::sync::OnceCell;

use crate::attempt::Attempt;
use crate::blocking::spawn_blocking;
use crate::config::GateConfig;
use crate::coverage::{
    ChangeSet, CoverageError, CoverageEvidence, Format, Judgement, Options, Report, Verdict, judge, read_report,
};
use crate::finding::{
    Capabilities, Digests, Evidence, ExamineError, GateVerdict, InfraError, Reason, Toolchain, error_lines,
};
use crate::install::{Installed, check_in, install, minimal_environment};
use crate::install_cache::{CheckedOut, InstallCache};
use crate::package::Package;
use crate::process::{self, Command, CommandResult, Exit};
use crate::tree;
use crate::workspace::{Archives, PreparedWorkspace, prepare};

/// The check that a gate runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateKind {
    Typecheck,
    Lint,
    Unit,
}

impl GateKind {
    pub const ALL: [Self; 3] = [Self::Typecheck, Self::Lint, Self::Unit];

    /// The kind of a tool `gate:<name>`. `None` if the name is unknown.
    pub fn from_tool(tool: &str) -> Option<Self> {
        let name = tool.strip_prefix("gate:")?;
        Self::ALL.into_iter().find(|gate| gate.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Typecheck => "typecheck",
            Self::Lint => "lint",
            Self::Unit => "unit",
        }
    }

    fn scripts(self, config: &GateConfig) -> &[String] {
        match self {
            Self::Typecheck => &config.typecheck_scripts,
            Self::Lint => &config.lint_scripts,
            Self::Unit => &config.unit_scripts,
        }
    }
}

/// What to examine, and for whom.
#[derive(Debug, Clone)]
pub struct Request {
    pub gate: GateKind,
    pub tool: String,
    pub tenant: String,
    pub run_id: String,
    pub step_id: String,
    pub attempt: u32,
    pub timeout: Duration,
    pub archives: Option<Archives>,
}

/// Runs gates. Attempts may run concurrently.
#[derive(Debug)]
pub struct Examiner {
    config: GateConfig,
    installs: Arc<InstallCache>,
    toolchain: OnceCell<Toolchain>,
}

/// Cancels an attempt whose future is dropped: its work on other threads stops, and the last owner deletes the folder.
struct CancelOnDrop(Arc<Attempt>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Examiner {
    pub fn new(config: GateConfig) -> Self {
        let installs = Arc::new(InstallCache::new(config.work_dir.join("installs"), config.max_installs));
        Self { config, installs, toolchain: OnceCell::new() }
    }

    pub fn config(&self) -> &GateConfig {
        &self.config
    }

    /// Runs a gate. A failed check is evidence with the verdict `failed`. An `InfraError` is not the workspace's fault.
    pub async fn examine(&self, request: Request) -> Result<Evidence, InfraError> {
        // A short step reserves at most a quarter of its time.
        let margin = self.config.margin.min(request.timeout / 4);
        let deadline = Instant::now() + request.timeout.saturating_sub(margin);
        let work_dir = self.config.work_dir.clone();
        let attempt = spawn_blocking(move || Attempt::begin(&work_dir));
        let attempt = Arc::new(attempt.await.map_err(InfraError::task_failed)??);
        let cancel_on_drop = CancelOnDrop(Arc::clone(&attempt));
        let mut evidence = new_evidence(&request);
        let mut checked_out = None;
        let result = self.run(request, &attempt, deadline, &mut evidence, &mut checked_out).await;
        if let Some(checked_out) = checked_out {
            check_in(&self.installs, &attempt, checked_out).await;
        }
        drop(cancel_on_drop);
        // Deleting thousands of files blocks, so use another thread.
        let _ = spawn_blocking(move || drop(attempt)).await;
        let (verdict, reason) = match result {
            Ok(reason) => (GateVerdict::Passed, reason),
            Err(ExamineError::GateFailed(reason)) => (GateVerdict::Failed, reason),
            Err(ExamineError::Infra(error)) => return Err(error),
        };
        Ok(Evidence { verdict, reason, finished_at_ms: now_ms(), ..evidence })
    }

    /// Returns the reason why the gate passes.
    async fn run(
        &self,
        request: Request,
        attempt: &Arc<Attempt>,
        deadline: Instant,
        evidence: &mut Evidence,
        checked_out: &mut Option<CheckedOut>,
    ) -> Result<Reason, ExamineError> {
        let gate = request.gate;
        let PreparedWorkspace { digests, changes } =
            prepare(request.archives, &self.config, attempt, gate == GateKind::Unit).await?;
        evidence.digests = digests;
        let package = Package::read(&attempt.workspace())?;
        evidence.digests.package_lock = package.lock.as_ref().map(|lock| lock.sha256.clone());
        let (script, text) = script(&package, gate.scripts(&self.config))?;
        let command = vec!["npm".to_string(), "run".into(), "--silent".into(), script.into()];
        (evidence.command, evidence.script) = (Some(command.clone()), Some(text.to_string()));
        evidence.toolchain = self.toolchain(attempt).await?;
        let environment = (request.tenant.as_str(), &evidence.toolchain);
        let installed =
            install(&self.installs, &self.config, attempt, &package, environment, remaining(deadline)).await?;
        *checked_out = record_install(installed, evidence, &attempt.workspace())?;
        let start_marker = attempt.temporary().join("tests-started");
        fs::write(&start_marker, "")?;
        let run = Command {
            argv: command,
            current_dir: attempt.workspace(),
            environment: minimal_environment(&self.config, attempt),
            timeout: remaining(deadline),
            tag: attempt.id.clone(),
        };
        let result = process::run(&run).await?;
        record_command(&result, evidence, &attempt.workspace());
        evidence.run_ms = Some(millis(result.duration));
        if let Some(changes) = changes {
            let (judgement, digests) = self.judge_coverage(changes, attempt, start_marker).await?;
            (evidence.coverage, evidence.digests.coverage_reports) = (Some(judgement), digests);
        }
        Ok(conclude(script, evidence)?)
    }

    /// The versions of Node and npm, read once per process.
    async fn toolchain(&self, attempt: &Attempt) -> Result<Toolchain, ExamineError> {
        if let Some(known) = self.toolchain.get() {
            return Ok(known.clone());
        }
        let node = self.version("node", attempt).await?;
        let npm = self.version("npm", attempt).await?;
        let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
        Ok(self.toolchain.get_or_init(|| async { Toolchain { node, npm, platform } }).await.clone())
    }

    async fn version(&self, program: &str, attempt: &Attempt) -> Result<String, Reason> {
        let command = Command {
            argv: vec![program.to_string(), "--version".into()],
            current_dir: attempt.home(),
            environment: minimal_environment(&self.config, attempt),
            timeout: Duration::from_secs(30),
            tag: attempt.id.clone(),
        };
        let Ok(CommandResult { exit: Exit::Code(0), output, .. }) = process::run(&command).await else {
            let path = &self.config.search_path;
            let message = format!("{program} cannot run from PATH {path}, so no command of the workspace can run");
            return Err(Reason::new("toolchain_missing", message));
        };
        Ok(output.tail().trim().to_string())
    }

    async fn judge_coverage(
        &self,
        changes: Result<ChangeSet, CoverageError>,
        attempt: &Arc<Attempt>,
        start_marker: PathBuf,
    ) -> Result<(CoverageEvidence, BTreeMap<String, String>), InfraError> {
        let config = &self.config;
        let options = Options {
            threshold: config.coverage_threshold,
            file_floor: None,
            strict_arms: config.strict_arms,
            roots: vec![attempt.workspace().to_string_lossy().into_owned()],
        };
        let (max_bytes, attempt) = (config.max_report_bytes, Arc::clone(attempt));
        let judged = spawn_blocking(move || {
            let mut digests = BTreeMap::new();
            let judgement = changes.and_then(|changes| {
                let reports = read_reports(&attempt.workspace(), &start_marker, max_bytes, &mut digests)?;
                Ok(judge(&changes, &reports, &options))
            });
            let judgement = judgement.unwrap_or_else(|error| Judgement::unjudged(error, options.threshold));
            (CoverageEvidence::from(&judgement), digests)
        });
        judged.await.map_err(InfraError::task_failed)
    }
}

/// Reads the Istanbul reports of the root and of each package. Rejects a report that is older than the tests.
fn read_reports(
    root: &Path,
    start_marker: &Path,
    max_bytes: u64,
    digests: &mut BTreeMap<String, String>,
) -> Result<Vec<Report>, CoverageError> {
    let unreadable = |path: &Path, why: &str| {
        CoverageError::new("report_unparsable", format!("the coverage report {} cannot be read: {why}", path.display()))
    };
    // Compare two file times, because the file system's clock may lag behind the process's clock.
    let started = fs::metadata(start_marker)
        .and_then(|found| found.modified())
        .map_err(|error| unreadable(start_marker, &error.to_string()))?;
    let mut reports = Vec::new();
    for project in tree::projects(root).map_err(|error| unreadable(root, &error.to_string()))? {
        let path = project.join("coverage/coverage-final.json");
        let Ok(found) = fs::symlink_metadata(root.join(&path)) else { continue };
        if !found.is_file() || found.len() > max_bytes {
            return Err(unreadable(&path, &format!("it is not a file of at most {max_bytes} bytes")));
        }
        if found.modified().map_err(|error| unreadable(&path, &error.to_string()))? < started {
            let message = format!("the coverage report {} was written before the tests started", path.display());
            return Err(CoverageError::new("report_stale", message));
        }
        let bytes = fs::read(root.join(&path)).map_err(|error| unreadable(&path, &error.to_string()))?;
        digests.insert(path.display().to_string(), sha256_hex(&bytes));
        reports.push(read_report(&bytes, Some(Format::Istanbul))?.0);
    }
    Ok(reports)
}

fn new_evidence(request: &Request) -> Evidence {
    Evidence {
        schema: "nofx.gate_evidence.v1",
        gate: request.gate.name().to_string(),
        tool: request.tool.clone(),
        run_id: request.run_id.clone(),
        step_id: request.step_id.clone(),
        attempt: request.attempt,
        verdict: GateVerdict::Failed,
        reason: Reason::new("unfinished", "the gate did not finish"),
        command: None,
        script: None,
        exit_code: None,
        signal: None,
        timed_out: false,
        started_at_ms: now_ms(),
        finished_at_ms: 0,
        install_ms: None,
        run_ms: None,
        install: None,
        output_bytes: 0,
        output_head: None,
        output_tail: String::new(),
        digests: Digests::default(),
        toolchain: Toolchain::default(),
        capabilities: Capabilities::current(),
        coverage: None,
    }
}

fn script<'a>(package: &'a Package, names: &'a [String]) -> Result<(&'a str, &'a str), Reason> {
    package.script(names).ok_or_else(|| {
        let message = format!("package.json has no script named {}; add one", names.join(" or "));
        Reason::new("no_command", message)
    })
}

fn record_install(installed: Installed, evidence: &mut Evidence, root: &Path) -> Result<Option<CheckedOut>, Reason> {
    let (how, took, checked_out) = match installed {
        Installed::NotNeeded => ("none", None, None),
        Installed::FromCache(took, checked_out) => ("stored", Some(took), Some(checked_out)),
        Installed::New(took, checked_out) => ("fresh", Some(took), checked_out),
        Installed::Failed(reason, result) => {
            if let Some(result) = result {
                record_command(&result, evidence, root);
                evidence.install_ms = Some(millis(result.duration));
            }
            return Err(reason);
        }
    };
    (evidence.install, evidence.install_ms) = (Some(how), took.map(millis));
    Ok(checked_out)
}

fn record_command(result: &CommandResult, evidence: &mut Evidence, root: &Path) {
    match result.exit {
        Exit::Code(code) => evidence.exit_code = Some(code),
        Exit::Signal(signal) => evidence.signal = Some(signal),
        Exit::TimedOut => evidence.timed_out = true,
    }
    evidence.output_bytes = result.output.bytes;
    let relative = |text: String| text.replace(&format!("{}/", root.display()), "");
    evidence.output_head = result.output.head().map(relative);
    evidence.output_tail = relative(result.output.tail());
    evidence.digests.output = Some(hex(&result.output.sha256()));
}

fn conclude(script: &str, evidence: &Evidence) -> Result<Reason, Reason> {
    let gate = &evidence.gate;
    let output = format!("{}\n{}", evidence.output_head.as_deref().unwrap_or_default(), evidence.output_tail);
    let printed = || match error_lines(&output) {
        lines if lines.is_empty() => " and printed nothing".to_string(),
        lines => format!(":\n{lines}"),
    };
    if evidence.timed_out {
        return Err(Reason::new("timed_out", format!("{gate}: `npm run {script}` timed out and was killed")));
    }
    match evidence.exit_code {
        Some(0) => {}
        Some(code) => {
            return Err(Reason::new(
                "command_failed",
                format!("{gate}: `npm run {script}` exited with code {code}{}", printed()),
            ));
        }
        None => {
            let signal = evidence.signal.unwrap_or(0);
            return Err(Reason::new(
                "command_killed",
                format!("{gate}: `npm run {script}` was killed by signal {signal}{}", printed()),
            ));
        }
    }
    match &evidence.coverage {
        None => Ok(Reason::new("command_succeeded", format!("{gate}: `npm run {script}` succeeded"))),
        Some(coverage) => {
            let message = format!("{gate}: {}", coverage.reason);
            match coverage.verdict {
                Verdict::Passed => Ok(Reason::new(coverage.code, message)),
                Verdict::Failed | Verdict::CannotJudge => Err(Reason::new(coverage.code, message)),
            }
        }
    }
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
#[path = "examine_tests.rs"]
mod tests;
