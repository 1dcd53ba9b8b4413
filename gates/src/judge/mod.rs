//! Judges one gate: reads the workspace and its base, has the command run elsewhere, and decides from what comes back.
//! It fails closed: whatever is missing, unreadable or in doubt is no pass.
//!
//! No code of the workspace runs in this process. `subject` unpacks both trees, `weakening` compares their checks, `job`
//! turns the definition into a job for a runner, `conclude` reads what the runner returned. `reuse` repeats an earlier
//! verdict. `built_in` has the gates that need no command.

mod built_in;
mod conclude;
mod context;
mod job;
mod request;
mod reuse;
mod subject;
mod tests_of_base;
mod trust;
mod weakening;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nofx_sandbox::Level;
use shared::domain::digest::sha256_hex;
use shared::domain::policy::{Network, Sandbox};

use self::conclude::{Context, Observed, observe};
use self::job::{Terms, job};
use self::subject::{Subject, prepare};
use self::tests_of_base::{explains, results, tests_that_ran};
use crate::attempt::{Attempt, CancelOnDrop};
use crate::blocking::spawn_blocking;
use crate::coverage::{
    self, Base, ChangeSet, CoverageError, CoverageEvidence, SourceRules, Threshold, Wanted, read_folder,
};
use crate::definition::{self, Definition, Format, GateDefinition, Kind, Source as DefinitionSource};
use crate::evidence::{self, Doubt, Evidence, Verdict};
use crate::finding::{ExamineError, InfraError, Reason};
use crate::integrity::{self, Explanation, TestResult, compare_reports};
use crate::redact::Redactor;
use crate::run::{Bundle, CommandRun, Exit, Job, millis};
use crate::unpack::Limits;

pub use request::{
    Approved, Archive, BaseInput, Earlier, Judged, NewAttachment, Question, Request, Runner, RunnerLost,
};

/// A judge's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Holds only the folders of attempts.
    pub work_dir: PathBuf,
    pub unpack: Limits,
}

impl Settings {
    /// The defaults, with this work folder.
    pub fn new(work_dir: PathBuf) -> Self {
        Self { work_dir, unpack: Limits::default() }
    }
}

/// The part of a gate's time that is reserved for judging and storing.
const MARGIN: Duration = Duration::from_secs(15);

/// A gate in progress: the evidence so far.
struct Case {
    evidence: Evidence,
    attachments: Vec<NewAttachment>,
    /// Later gates may repeat the verdict.
    may_repeat: bool,
    /// The reason of the earlier verdict that this one repeats.
    repeated: Option<evidence::Reason>,
}

/// Why a gate ends without passing.
enum Stop {
    Failed(Reason),
    Ask(Question),
    Infra(InfraError),
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Failed(reason)
    }
}

impl From<InfraError> for Stop {
    fn from(error: InfraError) -> Self {
        Self::Infra(error)
    }
}

impl From<ExamineError> for Stop {
    fn from(error: ExamineError) -> Self {
        match error {
            ExamineError::GateFailed(reason) => Self::Failed(reason),
            ExamineError::Infra(error) => Self::Infra(error),
        }
    }
}

impl From<RunnerLost> for Stop {
    fn from(lost: RunnerLost) -> Self {
        Self::Infra(lost.into())
    }
}

/// Judges a gate. There is always evidence, also if the runner is lost.
pub async fn judge<R: Runner>(request: &Request, settings: &Settings, runner: &R) -> Judged {
    let mut case = Case::new(request);
    let ended = judge_in_folder(request, settings, runner, &mut case).await;
    let (mut question, mut lost) = (None, None);
    let (verdict, reason) = match ended {
        Ok(reason) => (Verdict::Passed, reason),
        Err(Stop::Failed(reason)) => (Verdict::Failed, reason),
        Err(Stop::Ask(asked)) => {
            let reason = Reason::new("checks_weakened", asked.text.clone());
            question = Some(Question { text: shown(&asked.text), ..asked });
            (Verdict::Blocked, reason)
        }
        Err(Stop::Infra(error)) => {
            let reason = Reason::new(error.code, error.message.clone());
            lost = Some(InfraError { message: shown(&error.message), ..error });
            (Verdict::Failed, reason)
        }
    };
    let Case { mut evidence, attachments, may_repeat, repeated } = case;
    evidence.verdict = verdict;
    let own = || evidence::Reason { code: reason.code.to_owned(), message: shown(&reason.message) };
    evidence.reason = repeated.unwrap_or_else(own);
    evidence.finished_at_ms = now_ms();
    let reuse_key = if may_repeat { reuse::reuse_key(&evidence, request) } else { None };
    Judged { evidence, attachments, question, reuse_key, lost }
}

async fn judge_in_folder<R: Runner>(
    request: &Request,
    settings: &Settings,
    runner: &R,
    case: &mut Case,
) -> Result<Reason, Stop> {
    let deadline = Instant::now() + time_to_judge(request.timeout, request.policy.max_timeout_s);
    let work_dir = settings.work_dir.clone();
    let attempt = spawn_blocking(move || Attempt::begin(&work_dir)).await.map_err(InfraError::task_failed)?;
    let attempt = Arc::new(attempt.map_err(InfraError::from)?);
    let cancel_on_drop = CancelOnDrop(Arc::clone(&attempt));
    let started = Instant::now();
    let prepared = prepare(request.workspace.clone(), request.base.clone(), settings.unpack, &attempt).await;
    case.took("unpack", started);
    let result = match prepared {
        Ok(subject) => {
            let work = Work { request, runner, subject: Arc::new(subject), deadline };
            work.judge(case).await
        }
        Err(error) => Err(error.into()),
    };
    drop(cancel_on_drop);
    // Deleting thousands of files blocks, so use another thread.
    let _ = spawn_blocking(move || drop(attempt)).await;
    result
}

/// The time of a gate: that of its step without the margin, and no more than the policy gives it.
fn time_to_judge(timeout: Duration, max_timeout_s: Option<u32>) -> Duration {
    // A short step reserves at most a quarter of its time.
    let of_step = timeout.saturating_sub(MARGIN.min(timeout / 4));
    max_timeout_s.map_or(of_step, |most| of_step.min(Duration::from_secs(most.into())))
}

/// One gate with its trees unpacked.
struct Work<'a, R> {
    request: &'a Request,
    runner: &'a R,
    subject: Arc<Subject>,
    deadline: Instant,
}

/// The definition that counts, and whose it is.
struct Effective {
    definition: Definition,
    source: evidence::Source,
}

impl<R: Runner> Work<'_, R> {
    async fn judge(&self, case: &mut Case) -> Result<Reason, Stop> {
        self.record_subject(case);
        self.check_base(case)?;
        let started = Instant::now();
        let effective = self.definition(case).await?;
        case.took("compare", started);
        let gate = effective.definition.gate(&self.request.gate).map_err(|error| no_such_gate(&error))?;
        self.record_definition(gate, &effective, case);
        self.check_terms(gate)?;
        let result = match gate.kind {
            // The lines that it finds hold credentials, so evidence must not repeat them.
            Kind::Secrets => return built_in::secrets(self, gate, case).await,
            Kind::Mutants => built_in::mutants(self, &effective.definition, gate, case).await,
            Kind::Audit => built_in::audit(self, &effective.definition, gate, case).await,
            Kind::Command => self.command(&effective.definition, gate, case).await,
        };
        self.show_sources(case).await;
        result
    }

    /// Adds the source around what was found. Without it the evidence is still whole.
    async fn show_sources(&self, case: &mut Case) {
        let (subject, evidence) = (Arc::clone(&self.subject), case.evidence.clone());
        let shown = spawn_blocking(move || context::excerpts(&evidence, &subject.head)).await;
        case.evidence.context = shown.unwrap_or_default();
    }

    fn record_subject(&self, case: &mut Case) {
        let archive = Some(self.request.workspace.sha256.clone());
        case.evidence.subject = Some(evidence::Subject { tree: self.subject.head.digest(), archive });
        let Some(base) = &self.subject.base else { return };
        let archive = match &self.request.base {
            Some(BaseInput::Archive(archive) | BaseInput::Diff(archive)) => Some(archive.sha256.clone()),
            None => None,
        };
        let given_by = self.request.base_given_by;
        case.evidence.base = evidence::Base {
            tree: Some(base.digest()),
            archive,
            given_by,
            origin: self.request.base_origin.clone().map(Into::into),
        };
    }

    /// What the policy demands of a base.
    fn check_base(&self, case: &mut Case) -> Result<(), Stop> {
        let policy = &self.request.policy;
        if self.subject.base.is_none() {
            if policy.require_base {
                let message = "the policy requires a base, and neither the plan nor the step names one";
                return Err(Reason::new("base_required", message).into());
            }
            case.doubt("definition_candidate", "There was no base, so the change under test defined its own gate.");
            return Ok(());
        }
        trust::check(policy, &case.evidence.base, self.request.base_origin.as_ref())
            .map_err(|why| Reason::new("base_not_trusted", why).into())
    }

    /// The base's definition, unless there is no base or a person approved the difference.
    async fn definition(&self, case: &mut Case) -> Result<Effective, Stop> {
        let subject = Arc::clone(&self.subject);
        let read = spawn_blocking(move || {
            let head = definition::define(&subject.head).map_err(|problems| invalid_definition("", &problems))?;
            let Some(base) = &subject.base else { return Ok((head, None)) };
            let of_base = definition::define(base).map_err(|problems| invalid_definition(" of the base", &problems))?;
            let found = integrity::compare(base, &subject.head, &of_base, &head).map_err(InfraError::from)?;
            Ok::<_, Stop>((head, Some((of_base, found))))
        });
        let (head, compared) = read.await.map_err(InfraError::task_failed)??;
        let Some((of_base, found)) = compared else {
            return Ok(Effective { definition: head, source: evidence::Source::Candidate });
        };
        // Every gate of a run asks the same question, so that one decision answers all of them.
        let listed: Vec<_> = found.findings.into_iter().map(evidence::Weakening::from).collect();
        if weakening::settle(&listed, self.request, case)? {
            case.doubt("definition_approved", "A person approved a change of the checks themselves.");
            return Ok(Effective { definition: head, source: evidence::Source::Approved });
        }
        Ok(Effective { definition: of_base, source: evidence::Source::Base })
    }

    fn record_definition(&self, gate: &GateDefinition, effective: &Effective, case: &mut Case) {
        let definition = &effective.definition;
        let mut thresholds = BTreeMap::new();
        if let Some(coverage) = &gate.coverage {
            thresholds.insert("coverage".to_owned(), serde_json::json!(self.options(gate).threshold));
            thresholds.insert("file_floor".to_owned(), serde_json::json!(coverage.file_floor));
            thresholds.insert("strict".to_owned(), serde_json::json!(coverage.strict));
        }
        case.evidence.definition = Some(evidence::Definition {
            source: effective.source,
            file: match definition.source {
                DefinitionSource::File => definition::FILE.to_owned(),
                DefinitionSource::Presets => "presets".to_owned(),
            },
            digest: definition.digest.clone(),
            command: gate.command.clone(),
            reports: gate
                .reports
                .iter()
                .map(|report| evidence::ExpectedReport {
                    format: report.format.name().to_owned(),
                    path: job::shown(report),
                })
                .collect(),
            thresholds,
            severity: match gate.severity {
                definition::Severity::Error => evidence::Severity::Error,
                definition::Severity::Warning => evidence::Severity::Warning,
            },
        });
        if gate.severity == definition::Severity::Warning {
            case.doubt(
                "only_warns",
                "The definition says that findings of this gate are warnings: they do not fail it.",
            );
        }
    }

    /// Whether the plan and the policy allow what a gate's command asks for. A gate that runs the command of another one
    /// checks that one too.
    fn check_terms(&self, gate: &GateDefinition) -> Result<(), Stop> {
        if gate.needs_risky() && !self.request.risky {
            let message = format!("{} starts the workspace's own program: the plan needs \"risky\": true", gate.name);
            return Err(Reason::new("risky_required", message).into());
        }
        // An audit runs no code of the workspace.
        if gate.network && gate.kind != Kind::Audit && self.request.policy.network == Network::Never {
            let message = format!("{} asks for the network, and the policy never allows it", gate.name);
            return Err(Reason::new("network_denied", message).into());
        }
        Ok(())
    }

    async fn command(&self, definition: &Definition, gate: &GateDefinition, case: &mut Case) -> Result<Reason, Stop> {
        case.evidence.locks = self.locks(gate)?;
        let job = job(definition, gate, &self.terms(gate));
        if self.reuse(gate, &job, case).await {
            return Ok(Reason::new("reused", "the verdict is that of earlier evidence"));
        }
        let changes = if gate.measures_coverage() { Some(self.changes(definition, gate).await?) } else { None };
        let (run, bundle) = self.run_once(job, case).await?;
        let started = Instant::now();
        let observed = self.observe(gate, run.clone(), bundle, changes).await?;
        case.record(&run, &observed);
        case.took("judge", started);
        if observed.parsed.is_empty() && observed.coverage.is_none() {
            case.doubt("no_report", "The gate has no report: the exit code of its command is all that counts.");
        }
        let verdict = observed.verdict(&run, gate)?;
        self.compare_tests(definition, gate, &observed, case).await?;
        Ok(verdict)
    }

    /// The sha256 of each lockfile beside the gate's command or at the root.
    fn locks(&self, gate: &GateDefinition) -> Result<BTreeMap<String, String>, Stop> {
        const LOCKS: [&str; 9] = [
            "npm-shrinkwrap.json",
            "package-lock.json",
            "requirements.lock",
            "requirements.txt",
            "uv.lock",
            "poetry.lock",
            "pylock.toml",
            "Cargo.lock",
            "go.sum",
        ];
        let mut found = BTreeMap::new();
        for name in LOCKS {
            let beside = format!("{}/{name}", gate.directory);
            for path in [name, beside.trim_start_matches('/')] {
                if let Some(text) = self.subject.head.read(path).map_err(InfraError::from)? {
                    found.insert(path.to_owned(), sha256_hex(&text));
                }
            }
        }
        Ok(found)
    }

    /// Has a job run and records what the runner says about it.
    async fn run_once(&self, job: Job, case: &mut Case) -> Result<(CommandRun, Arc<Bundle>), Stop> {
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

    async fn observe(
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

    /// The changed lines, from the trees as they were before any command ran.
    async fn changes(
        &self,
        definition: &Definition,
        gate: &GateDefinition,
    ) -> Result<Result<ChangeSet, CoverageError>, Stop> {
        let rules = source_rules(definition, gate)?;
        let subject = Arc::clone(&self.subject);
        let changes = spawn_blocking(move || {
            let wanted = |path: &str| if rules.may_be_source(path) { Wanted::Text } else { Wanted::Hash };
            let head = read_folder(subject.head.root(), wanted)?;
            let base = subject.base.as_ref().map(|base| read_folder(base.root(), wanted)).transpose()?;
            let base = base.as_ref().map_or(Base::None, Base::Tree);
            Ok::<_, std::io::Error>(ChangeSet::between(base, &head, &rules))
        });
        Ok(changes.await.map_err(InfraError::task_failed)?.map_err(InfraError::from)?)
    }

    fn options(&self, gate: &GateDefinition) -> coverage::Options {
        let rules = gate.coverage;
        let own = rules.and_then(|rules| rules.threshold).and_then(threshold).unwrap_or(Threshold::DEFAULT);
        let least = self.request.policy.minimum_threshold;
        let own = match (own.ratio(), least) {
            (ratio, Some(least)) if least > ratio => threshold(least).unwrap_or(own),
            _ => own,
        };
        coverage::Options {
            threshold: own,
            file_floor: rules.and_then(|rules| rules.file_floor).and_then(threshold),
            strict_arms: rules.is_some_and(|rules| rules.strict),
            roots: Vec::new(),
        }
    }

    fn terms(&self, gate: &GateDefinition) -> Terms {
        let policy = match self.request.policy.minimum_sandbox {
            Sandbox::Limits => Level::Limits,
            Sandbox::Landlock => Level::Landlock,
            Sandbox::Namespaces => Level::Namespaces,
        };
        Terms {
            tenant: self.request.tenant.clone(),
            network: gate.network && self.request.policy.network != Network::Never,
            minimum_sandbox: gate.sandbox.map_or(policy, |own| own.max(policy)),
            timeout: self.deadline.saturating_duration_since(Instant::now()),
        }
    }

    /// Tests that ran at the base must still run. The base's tests run only if the change could have removed some.
    async fn compare_tests(
        &self,
        definition: &Definition,
        gate: &GateDefinition,
        observed: &Observed,
        case: &mut Case,
    ) -> Result<(), Stop> {
        let (Some(tests), Some(archive)) = (&observed.tests, &self.subject.base_archive) else { return Ok(()) };
        if tests.skipped == 0 && !self.touches_tests(definition) {
            return Ok(());
        }
        let started = Instant::now();
        let bundle = self.runner.run(archive, job(definition, gate, &self.terms(gate))).await?;
        case.took("base_tests", started);
        // The change decides how much time its own tests leave, so it could hide what it lost.
        if bundle.result.runs.first().is_some_and(|run| run.exit == Exit::TimedOut) {
            let message =
                "the tests of the base did not end in the time that the change's tests left; raise the timeout";
            return Err(Reason::new("timed_out", format!("{}: {message}", gate.name)).into());
        }
        if let Some(stopped) = bundle.result.stopped.as_ref().filter(|stopped| stopped.retryable) {
            return Err(InfraError::new(known_code(&stopped.code), stopped.message.clone()).into());
        }
        let Some(run) = bundle.result.runs.first().cloned() else {
            case.doubt(
                "base_tests_unknown",
                "The tests of the base could not run, so nobody knows whether some are gone.",
            );
            return Ok(());
        };
        let of_base = self.observe(gate, run, Arc::new(bundle), None).await?;
        let Some(base_tests) = &of_base.tests else {
            case.doubt(
                "base_tests_unknown",
                "The tests of the base wrote no report, so nobody knows whether some are gone.",
            );
            return Ok(());
        };
        let explained = self.explained_tests(definition).await?;
        let ran = tests_that_ran(tests, base_tests);
        let is_explained = |test: &TestResult| explained.iter().any(|one| explains(one, &test.name, &ran));
        let gone = compare_reports(&results(base_tests), &results(tests), is_explained);
        let listed: Vec<_> = gone.into_iter().map(evidence::Weakening::from).collect();
        weakening::settle(&listed, self.request, case)?;
        Ok(())
    }

    /// Tests of the base that the change renamed, merged, or deleted with their code.
    async fn explained_tests(&self, definition: &Definition) -> Result<Vec<Explanation>, Stop> {
        let (subject, definition) = (Arc::clone(&self.subject), definition.clone());
        let explained = spawn_blocking(move || match &subject.base {
            Some(base) => integrity::explained_tests(base, &subject.head, &definition),
            None => Ok(Vec::new()),
        });
        Ok(explained.await.map_err(InfraError::task_failed)?.map_err(InfraError::from)?)
    }

    /// Whether the change touches files that decide which tests run.
    fn touches_tests(&self, definition: &Definition) -> bool {
        let Some(base) = &self.subject.base else { return false };
        let head = &self.subject.head;
        let differs = |path: &&String| base.files().get(*path) != head.files().get(*path);
        base.files().keys().chain(head.files().keys()).filter(differs).any(|path| definition.tests.matches(path))
    }
}

impl Case {
    fn new(request: &Request) -> Self {
        let reason = evidence::Reason { code: "unfinished".into(), message: "the gate did not finish".into() };
        let mut evidence = Evidence::new(&request.gate, reason, now_ms());
        evidence.attempt.clone_from(&request.attempt);
        env!("CARGO_PKG_VERSION").clone_into(&mut evidence.runner.version);
        Self { evidence, attachments: Vec::new(), may_repeat: false, repeated: None }
    }

    fn took(&mut self, phase: &str, since: Instant) {
        *self.evidence.timings_ms.entry(phase.to_owned()).or_default() += millis(since.elapsed());
    }

    fn doubt(&mut self, code: &str, message: &str) {
        if !self.evidence.not_proved.iter().any(|doubt| doubt.code == code) {
            self.evidence.not_proved.push(Doubt { code: code.to_owned(), message: message.to_owned() });
        }
    }

    /// What the runner says about installation, toolchain and time.
    fn record_result(&mut self, bundle: &Bundle) {
        let result = &bundle.result;
        self.evidence.runner.version.clone_from(&result.runner);
        self.evidence.runner.error = result.stopped.as_ref().map(|stopped| stopped.message.clone());
        self.evidence.toolchain.clone_from(&result.toolchain);
        self.evidence.install = result.install.as_ref().map(|install| evidence::Install {
            how: install.how.clone(),
            ecosystem: Some(install.ecosystem.name().to_owned()),
            ms: install.ms,
        });
        for (phase, ms) in &result.timings_ms {
            self.evidence.timings_ms.insert(format!("runner_{phase}"), *ms);
        }
    }

    fn attach_log(&mut self, run: &CommandRun, bundle: &Bundle) {
        let log = run.output.entry.as_ref().and_then(|entry| bundle.files.get(entry));
        let is_cut = run.output.head.is_some();
        if let Some(log) = log.filter(|_| is_cut) {
            let bytes = Redactor::redact(&[], log);
            self.attachments.push(NewAttachment { name: "log.txt".to_owned(), media_type: "text/plain", bytes });
        }
    }

    fn record(&mut self, run: &CommandRun, observed: &Observed) {
        let evidence = &mut self.evidence;
        evidence.command = Some(evidence::CommandResult {
            exit_code: if let Exit::Code(code) = run.exit { Some(code) } else { None },
            signal: if let Exit::Signal(signal) = run.exit { Some(signal) } else { None },
            timed_out: run.exit == Exit::TimedOut,
            output: evidence::Output {
                bytes: run.output.bytes,
                head: run.output.head.as_deref().map(redacted),
                tail: redacted(&run.output.tail),
                sha256: run.output.sha256.clone(),
            },
        });
        evidence.sandbox = run.sandbox.clone();
        evidence.reports.clone_from(&observed.reports);
        evidence.findings =
            evidence::Findings::of(observed.parsed.iter().flat_map(|parsed| parsed.findings.clone()).collect());
        evidence.tests = observed.tests.as_ref().map(evidence::Tests::of);
        evidence.coverage =
            observed.coverage.as_ref().and_then(|coverage| serde_json::to_value(CoverageEvidence::from(coverage)).ok());
        self.doubt_sandbox(run);
        if observed.coverage.is_some() || observed.tests.is_some() {
            self.doubt(
                "report_forgeable",
                "The tests and their reports come from the same process: tested code can forge the reports. \
                 The gate `mutants` answers that.",
            );
        }
    }

    fn doubt_sandbox(&mut self, run: &CommandRun) {
        // An audit runs nothing of the workspace.
        if run.sandbox.is_null() {
            return;
        }
        match run.sandbox["level"].as_str() {
            Some("namespaces") => {}
            Some("landlock") => self.doubt("sandbox_landlock", "The command ran without namespaces of its own."),
            _ => self.doubt("sandbox_weak", "The command was not isolated from the files of its host."),
        }
        if run.sandbox["network"] == "open" {
            self.doubt("network_open", "The command could reach the network.");
        }
    }
}

/// The sources that the definition names, else those of the languages that the gate's reports can measure.
fn source_rules(definition: &Definition, gate: &GateDefinition) -> Result<SourceRules, Stop> {
    let only_scripts =
        gate.reports.iter().all(|report| report.format == Format::Istanbul || !report.format.is_coverage());
    let rules = if only_scripts { SourceRules::default() } else { SourceRules::of_every_language() };
    let sources = definition.sources.as_ref().map(|globs| globs.patterns().to_vec()).unwrap_or_default();
    let rules = rules.with_sources(&sources).and_then(|rules| rules.with_ignores(definition.ignore.patterns()));
    rules.map_err(|message| Reason::new("definition_invalid", message).into())
}

/// The exact fraction that a person wrote.
fn threshold(ratio: f64) -> Option<Threshold> {
    ratio.to_string().parse().ok()
}

/// A reason as it is stored and shown everywhere: without secrets, and with visible control characters. Postgres stores no
/// NUL, and a terminal would obey the others.
fn shown(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    for letter in redacted(message).chars() {
        match letter {
            '\n' | '\t' => shown.push(letter),
            letter if letter.is_control() || is_direction(letter) => shown.extend(letter.escape_unicode()),
            letter => shown.push(letter),
        }
    }
    shown
}

/// Reorders the text around it.
fn is_direction(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text of the command, without secrets.
fn redacted(text: &str) -> String {
    String::from_utf8_lossy(&Redactor::redact(&[], text.as_bytes())).into_owned()
}

fn no_such_gate(error: &definition::NoSuchGate) -> Stop {
    Reason::new("no_command", error.to_string()).into()
}

fn invalid_definition(of: &str, problems: &[definition::Problem]) -> Stop {
    const NAMED: usize = 5;
    let named: Vec<String> = problems.iter().take(NAMED).map(ToString::to_string).collect();
    let message = format!("{}{of} is not valid: {}", definition::FILE, named.join("; "));
    Reason::new("definition_invalid", message).into()
}

/// The runner's text comes from another process, so only codes that we know are taken over.
fn known_code(code: &str) -> &'static str {
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

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
