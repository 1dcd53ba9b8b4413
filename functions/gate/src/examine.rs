//! One examination: lay out the workspace, install, run the command, judge. It uses neither storage nor database: bytes
//! in, findings out.

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
use crate::coverage::{CannotJudge, ChangeSet, Judgement, Options, Report, Verdict, judge, parse_istanbul};
use crate::finding::{Capabilities, Digests, Evidence, GateVerdict, Reason, Stop, Toolchain, Trouble, telling_lines};
use crate::install::{Installed, bare_environment, give_back, install};
use crate::package::Package;
use crate::pool::{Lent, Pool};
use crate::process::{self, Command, Ended, Exit};
use crate::tree;
use crate::workspace::{Archives, Laid, lay};

/// What a gate checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Typecheck,
    Lint,
    Unit,
}

impl Gate {
    pub const ALL: [Self; 3] = [Self::Typecheck, Self::Lint, Self::Unit];

    /// The gate of a tool `gate:<name>`, if there is one of that name.
    pub fn of_tool(tool: &str) -> Option<Self> {
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
    pub gate: Gate,
    pub tool: String,
    pub tenant: String,
    pub run_id: String,
    pub step_id: String,
    pub attempt: u32,
    pub timeout: Duration,
    pub archives: Option<Archives>,
}

/// Examines workspaces, one attempt at a time or several.
#[derive(Debug)]
pub struct Examiner {
    config: GateConfig,
    pool: Arc<Pool>,
    toolchain: OnceCell<Toolchain>,
}

/// Cancels an attempt whose future was dropped. Its work on other threads stops, and the last owner deletes the folder.
struct Ending(Arc<Attempt>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Examiner {
    pub fn new(config: GateConfig) -> Self {
        let pool = Arc::new(Pool::new(config.work_dir.join("installs"), config.max_installs));
        Self { config, pool, toolchain: OnceCell::new() }
    }

    pub fn config(&self) -> &GateConfig {
        &self.config
    }

    /// Examines a workspace. A failed check is a finding. `Trouble` is what the workspace is not at fault for.
    pub async fn examine(&self, request: Request) -> Result<Evidence, Trouble> {
        // A short step reserves at most a quarter of its time.
        let margin = self.config.margin.min(request.timeout / 4);
        let deadline = Instant::now() + request.timeout.saturating_sub(margin);
        let work_dir = self.config.work_dir.clone();
        let attempt = spawn_blocking(move || Attempt::begin(&work_dir));
        let attempt = Arc::new(attempt.await.map_err(Trouble::stopped)??);
        let ending = Ending(Arc::clone(&attempt));
        let mut evidence = begin(&request);
        let mut lent = None;
        let ended = self.work(request, &attempt, deadline, &mut evidence, &mut lent).await;
        if let Some(lent) = lent {
            give_back(&self.pool, &attempt, lent).await;
        }
        drop(ending);
        // On another thread, because thousands of files may have to be deleted.
        let _ = spawn_blocking(move || drop(attempt)).await;
        let (verdict, reason) = match ended {
            Ok(reason) => (GateVerdict::Passed, reason),
            Err(Stop::Failed(reason)) => (GateVerdict::Failed, reason),
            Err(Stop::Trouble(trouble)) => return Err(trouble),
        };
        Ok(Evidence { verdict, reason, finished_at_ms: now_ms(), ..evidence })
    }

    /// The reason why the gate passes.
    async fn work(
        &self,
        request: Request,
        attempt: &Arc<Attempt>,
        deadline: Instant,
        evidence: &mut Evidence,
        lent: &mut Option<Lent>,
    ) -> Result<Reason, Stop> {
        let gate = request.gate;
        let Laid { digests, changes } = lay(request.archives, &self.config, attempt, gate == Gate::Unit).await?;
        evidence.digests = digests;
        let package = Package::read(&attempt.workspace())?;
        evidence.digests.package_lock = package.lock.as_ref().map(|lock| lock.sha256.clone());
        let (script, text) = script(&package, gate.scripts(&self.config))?;
        let command = vec!["npm".to_string(), "run".into(), "--silent".into(), script.into()];
        (evidence.command, evidence.script) = (Some(command.clone()), Some(text.to_string()));
        evidence.toolchain = self.toolchain(attempt).await?;
        let surroundings = (request.tenant.as_str(), &evidence.toolchain);
        let installed = install(&self.pool, &self.config, attempt, &package, surroundings, left(deadline)).await?;
        *lent = note_install(installed, evidence, &attempt.workspace())?;
        let marker = attempt.temporary().join("tests-began");
        fs::write(&marker, "")?;
        let run = Command {
            line: command,
            folder: attempt.workspace(),
            environment: bare_environment(&self.config, attempt),
            limit: left(deadline),
            mark: attempt.id.clone(),
        };
        let ended = process::run(&run).await?;
        note_end(&ended, evidence, &attempt.workspace());
        evidence.run_ms = Some(millis(ended.took));
        if let Some(changes) = changes {
            let (judgement, digests) = self.judge_coverage(changes, attempt, marker).await?;
            (evidence.coverage, evidence.digests.coverage_reports) = (Some(judgement), digests);
        }
        Ok(conclude(script, evidence)?)
    }

    /// Versions of Node and npm, asked for once per process.
    async fn toolchain(&self, attempt: &Attempt) -> Result<Toolchain, Stop> {
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
            line: vec![program.to_string(), "--version".into()],
            folder: attempt.home(),
            environment: bare_environment(&self.config, attempt),
            limit: Duration::from_secs(30),
            mark: attempt.id.clone(),
        };
        let Ok(Ended { exit: Exit::Code(0), output, .. }) = process::run(&command).await else {
            let path = &self.config.search_path;
            let message = format!("{program} cannot be run from PATH {path}, so no command of the workspace can run");
            return Err(Reason::new("toolchain_missing", message));
        };
        Ok(output.tail().trim().to_string())
    }

    async fn judge_coverage(
        &self,
        changes: Result<ChangeSet, CannotJudge>,
        attempt: &Arc<Attempt>,
        marker: PathBuf,
    ) -> Result<(Judgement, BTreeMap<String, String>), Trouble> {
        let config = &self.config;
        let options = Options {
            threshold: config.coverage_threshold,
            strict_arms: config.strict_arms,
            root: attempt.workspace().to_string_lossy().into_owned(),
        };
        let (most, attempt) = (config.max_report_bytes, Arc::clone(attempt));
        let judged = spawn_blocking(move || {
            let mut digests = BTreeMap::new();
            let judgement = changes.and_then(|changes| {
                let reports = read_reports(&attempt.workspace(), &marker, most, &mut digests)?;
                Ok(judge(&changes, &reports, &options))
            });
            (judgement.unwrap_or_else(|why| Judgement::unjudged(why, options.threshold)), digests)
        });
        judged.await.map_err(Trouble::stopped)
    }
}

/// The Istanbul reports of the root and of each package. Reports from before the tests are refused.
fn read_reports(
    root: &Path,
    marker: &Path,
    most: u64,
    digests: &mut BTreeMap<String, String>,
) -> Result<Vec<Report>, CannotJudge> {
    let unreadable = |path: &Path, why: &str| {
        CannotJudge::new("report_unparsable", format!("the coverage report {} cannot be read: {why}", path.display()))
    };
    // Compare with a file's time, because the file system's clock may lag behind the process's clock.
    let began = fs::metadata(marker)
        .and_then(|found| found.modified())
        .map_err(|error| unreadable(marker, &error.to_string()))?;
    let mut reports = Vec::new();
    for project in tree::projects(root).map_err(|error| unreadable(root, &error.to_string()))? {
        let path = project.join("coverage/coverage-final.json");
        let Ok(found) = fs::symlink_metadata(root.join(&path)) else { continue };
        if !found.is_file() || found.len() > most {
            return Err(unreadable(&path, &format!("it is not a file of at most {most} bytes")));
        }
        if found.modified().map_err(|error| unreadable(&path, &error.to_string()))? < began {
            let message = format!("the coverage report {} was written before the tests began", path.display());
            return Err(CannotJudge::new("report_stale", message));
        }
        let bytes = fs::read(root.join(&path)).map_err(|error| unreadable(&path, &error.to_string()))?;
        digests.insert(path.display().to_string(), sha256_hex(&bytes));
        reports.push(parse_istanbul(&bytes)?);
    }
    Ok(reports)
}

fn begin(request: &Request) -> Evidence {
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
        capabilities: Capabilities::here(),
        coverage: None,
    }
}

fn script<'a>(package: &'a Package, names: &'a [String]) -> Result<(&'a str, &'a str), Reason> {
    package.script(names).ok_or_else(|| {
        let message = format!("package.json has no script named {}, so there is no command to run", names.join(" or "));
        Reason::new("no_command", message)
    })
}

fn note_install(installed: Installed, evidence: &mut Evidence, root: &Path) -> Result<Option<Lent>, Reason> {
    let (how, took, lent) = match installed {
        Installed::None => ("none", None, None),
        Installed::Stored(took, lent) => ("stored", Some(took), Some(lent)),
        Installed::Fresh(took, lent) => ("fresh", Some(took), lent),
        Installed::Refused(reason, ended) => {
            if let Some(ended) = ended {
                note_end(&ended, evidence, root);
                evidence.install_ms = Some(millis(ended.took));
            }
            return Err(reason);
        }
    };
    (evidence.install, evidence.install_ms) = (Some(how), took.map(millis));
    Ok(lent)
}

fn note_end(ended: &Ended, evidence: &mut Evidence, root: &Path) {
    match ended.exit {
        Exit::Code(code) => evidence.exit_code = Some(code),
        Exit::Signal(signal) => evidence.signal = Some(signal),
        Exit::TimedOut => evidence.timed_out = true,
    }
    evidence.output_bytes = ended.output.bytes;
    let relative = |text: String| text.replace(&format!("{}/", root.display()), "");
    evidence.output_head = ended.output.head().map(relative);
    evidence.output_tail = relative(ended.output.tail());
    evidence.digests.output = Some(hex(&ended.output.sha256()));
}

fn conclude(script: &str, evidence: &Evidence) -> Result<Reason, Reason> {
    let gate = &evidence.gate;
    let output = format!("{}\n{}", evidence.output_head.as_deref().unwrap_or_default(), evidence.output_tail);
    let said = || match telling_lines(&output) {
        lines if lines.is_empty() => " and printed nothing".to_string(),
        lines => format!(":\n{lines}"),
    };
    if evidence.timed_out {
        return Err(Reason::new("timed_out", format!("{gate}: `npm run {script}` did not end in time and was killed")));
    }
    match evidence.exit_code {
        Some(0) => {}
        Some(code) => {
            return Err(Reason::new(
                "command_failed",
                format!("{gate}: `npm run {script}` exited with code {code}{}", said()),
            ));
        }
        None => {
            let signal = evidence.signal.unwrap_or(0);
            return Err(Reason::new(
                "command_killed",
                format!("{gate}: `npm run {script}` was killed by signal {signal}{}", said()),
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

fn left(deadline: Instant) -> Duration {
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
