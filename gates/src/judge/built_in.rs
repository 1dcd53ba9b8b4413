//! Gates that need no command of the workspace: secrets in changed lines, and mutants of them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::job::job;
use super::request::{Runner, RunnerLost};
use super::runs::{check_ended, check_isolation};
use super::subject::Subject;
use super::text::redact_reports;
use super::{Case, Stop, Work};
use crate::blocking::spawn_blocking;
use crate::coverage::{Judgement, LineVerdict, changed_lines};
use crate::definition::{Definition, Ecosystem, Format, GateDefinition, Globs, ReportFile};
use crate::evidence::{DoubtCode, Findings, Report};
use crate::finding::{InfraError, Reason};
use crate::mutants::{self, Language, Mutant, MutantResult, Tried};
use crate::run::{Exit, Variant, millis};
use crate::secrets::{self, Scan, SourceFile};

/// How much longer than three times the tests a mutant may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far the runner's clock may be behind when it stops a mutant.
const SLACK: Duration = Duration::from_secs(1);

/// The gate `secrets`: no changed line holds a secret.
pub async fn secrets<R: Runner>(work: &Work<'_, R>, gate: &GateDefinition, case: &mut Case) -> Result<Reason, Stop> {
    let (subject, allowed) = (Arc::clone(&work.subject), gate.allow.clone());
    let scanned = spawn_blocking(move || scan(&subject, &allowed));
    let scan = scanned.await.map_err(InfraError::task_failed)?.map_err(InfraError::from)?;
    if scan.allowed_findings > 0 {
        case.doubt(DoubtCode::SecretsAllowed);
    }
    let judged = scan.judge();
    case.evidence.findings = Findings::of(scan.findings);
    Ok(judged?)
}

fn scan(subject: &Subject, allowed: &Globs) -> io::Result<Scan> {
    let mut texts: BTreeMap<&str, (Vec<u8>, Option<Vec<u32>>)> = BTreeMap::new();
    for (path, entry) in subject.head.files() {
        let old = subject.base.as_ref().and_then(|base| base.files().get(path));
        if old.is_some_and(|old| old.sha256 == entry.sha256) {
            continue;
        }
        let Some(new) = subject.head.read(path)? else { continue };
        let before = match &subject.base {
            Some(base) => base.read(path)?,
            None => None,
        };
        let changed = before.map(|old| changed_lines(&old, &new));
        texts.insert(path, (new, changed));
    }
    let files = texts.iter().map(|(path, (bytes, changed))| SourceFile { path, bytes, changed: changed.as_deref() });
    Ok(secrets::scan(files, |path| allowed.matches(path)))
}

/// What is audited: the package manager, the format of its auditor's report, the auditor, and the lockfiles.
const AUDITS: [(Ecosystem, Format, [&str; 2], &[&str]); 3] = [
    (Ecosystem::Npm, Format::NpmAudit, ["npm", "audit"], &["package-lock.json", "npm-shrinkwrap.json"]),
    (Ecosystem::Pip, Format::PipAudit, ["pip-audit", ""], &["requirements.lock", "requirements.txt", "pylock.toml"]),
    (Ecosystem::Cargo, Format::CargoAudit, ["cargo", "audit"], &["Cargo.lock"]),
];

/// The gate `audit`: no locked package has a known vulnerability. No code of the workspace runs. Every package manager with
/// a lockfile counts, so that a new lockfile hides no other one.
pub async fn audit<R: Runner>(
    work: &Work<'_, R>,
    definition: &Definition,
    gate: &GateDefinition,
    case: &mut Case,
) -> Result<Reason, Stop> {
    let files = work.subject.head.files();
    if files.contains_key("go.sum") {
        let message =
            "audit: there is no auditor for Go modules here; define a gate that runs govulncheck in nofx.toml";
        return Err(Reason::new("toolchain_missing", message).into());
    }
    let mut passed: Vec<Reason> = Vec::new();
    for (dependencies, format, command, locks) in AUDITS {
        if !locks.iter().any(|lock| files.contains_key(*lock)) {
            continue;
        }
        let command = command.into_iter().filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let audit = GateDefinition { dependencies, command, reports: vec![ReportFile::stdout(format)], ..gate.clone() };
        let before = case.begin_part();
        let result = work.command(definition, &audit, case).await;
        case.add_part(before);
        passed.push(result?);
    }
    let only_warns = passed.iter().find(|reason| reason.code == "warnings_only");
    let Some(first) = only_warns.or(passed.first()) else {
        let message =
            "audit: the workspace has no lockfile at its root; commit one, or judge the folder that has one by itself";
        return Err(Reason::new("nothing_checked", message).into());
    };
    let messages: Vec<&str> = passed.iter().map(|reason| reason.message.as_str()).collect();
    Ok(Reason::new(first.code, messages.join("; ")))
}

/// The gate `mutants`: the tests notice small changes of the changed lines that they run.
pub async fn mutants<R: Runner>(
    work: &Work<'_, R>,
    definition: &Definition,
    gate: &GateDefinition,
    case: &mut Case,
) -> Result<Reason, Stop> {
    let Some(rules) = &gate.mutants else { return Err(nothing("the definition has no rules for mutants")) };
    let tests = definition.gate(&rules.tests).map_err(|error| Reason::new("no_command", error.to_string()))?;
    work.check_terms(tests)?;
    if !tests.measures_coverage() {
        let message = format!(
            "the gate {} writes no coverage report, so nobody knows which lines it runs; give it one in nofx.toml",
            tests.name
        );
        return Err(Reason::new("no_command", message).into());
    }
    let changes = work.changes(definition, tests).await?;
    let (run, bundle) = work.run_once(job(definition, tests, &work.terms(tests)), case).await?;
    let took = Duration::from_millis(run.ms);
    let observed = work.observe(tests, run.clone(), bundle, Some(changes)).await?;
    case.record(&run, &observed, false);
    if run.exit != Exit::Code(0) {
        return Err(Reason::new("tests_failed", "the tests fail without any mutant, so they notice nothing").into());
    }
    let covered = covered_lines(observed.coverage.as_ref());
    let (subject, limit) = (Arc::clone(&work.subject), usize::try_from(rules.limit).unwrap_or(usize::MAX));
    let made = spawn_blocking(move || make(&subject, &covered, limit));
    let chosen = made.await.map_err(InfraError::task_failed)?.map_err(InfraError::from)?;
    if chosen.is_empty() {
        return Err(nothing("no changed line that the tests run can be mutated"));
    }
    let patience = (took * 3 + PATIENCE).min(Duration::from_secs(tests.timeout_s.into()));
    let tried = try_mutants(work, definition, tests, chosen, patience, case).await?;
    match mutants::judge(&tried, 0) {
        Ok(reason) => Ok(reason),
        Err(failure) => {
            case.evidence.findings = Findings::of(failure.findings.first);
            redact_reports(&mut case.evidence);
            Err(failure.reason.into())
        }
    }
}

/// Runs the tests with each mutant. Those for which too little time was left are not among the results.
async fn try_mutants<R: Runner>(
    work: &Work<'_, R>,
    definition: &Definition,
    tests: &GateDefinition,
    chosen: Vec<Chosen>,
    patience: Duration,
    case: &mut Case,
) -> Result<Vec<Tried>, Stop> {
    let mut job = job(definition, tests, &work.terms(tests));
    let minimum = job.command.minimum_sandbox;
    job.command.timeout_ms = job.command.timeout_ms.min(millis(patience));
    job.variants = chosen.iter().enumerate().map(|(at, one)| one.variant(at)).collect();
    let bundle = Arc::new(work.runner.run(&work.request.workspace, job).await?);
    check_ended(&bundle)?;
    if bundle.result.runs.len() != chosen.len() {
        return Err(RunnerLost::ended("its bundle does not have one run for each mutant").into());
    }
    let mut tried = Vec::new();
    for (one, run) in chosen.into_iter().zip(&bundle.result.runs) {
        check_isolation(run, minimum)?;
        // Nobody knows whether the tests would have noticed it.
        if run.exit == Exit::TimedOut && Duration::from_millis(run.ms) + SLACK < patience {
            case.doubt(DoubtCode::MutantsCut);
            continue;
        }
        let observed = work.observe(tests, run.clone(), Arc::clone(&bundle), None).await?;
        // `cargo test` prints nothing if the build fails.
        let printed_nothing = |report: &Report| report.format == Format::CargoTest.name() && report.size == 0;
        let ran = observed.tests.as_ref().is_none_or(|tests| tests.total > 0)
            && !observed.reports.iter().any(printed_nothing);
        let result = match run.exit {
            Exit::Code(0) => MutantResult::Survived,
            Exit::TimedOut | Exit::OverLimit(_) => MutantResult::TimedOut,
            _ if ran => MutantResult::Killed,
            _ => MutantResult::BuildFailed,
        };
        tried.push(Tried { mutant: one.mutant, result });
    }
    if tried.is_empty() {
        let message = "mutants: no time was left to try a mutant; raise the timeout of the step";
        return Err(Reason::new("timed_out", message).into());
    }
    Ok(tried)
}

/// A mutant with the text of its file.
struct Chosen {
    mutant: Mutant,
    text: String,
}

impl Chosen {
    fn variant(&self, at: usize) -> Variant {
        let edits = BTreeMap::from([(self.mutant.file.clone(), self.text.clone())]);
        Variant { name: format!("mutant-{at}"), edits }
    }
}

fn make(subject: &Subject, covered: &BTreeMap<String, Vec<u32>>, limit: usize) -> io::Result<Vec<Chosen>> {
    // The same tree gets the same mutants.
    let seed = subject.head.digest().sha256.bytes().take(8).fold(0, |seed: u64, byte| seed << 8 | u64::from(byte));
    let (mut all, mut sources) = (Vec::new(), BTreeMap::new());
    for (path, lines) in covered {
        let Some(language) = Language::of(path) else { continue };
        let Some(source) = subject.head.read(path)?.and_then(|bytes| String::from_utf8(bytes).ok()) else { continue };
        all.extend(mutants::mutate(path, &source, language, lines, limit, seed));
        sources.insert(path, source);
    }
    let chosen = mutants::choose(all, limit, seed).into_iter().filter_map(|mutant| {
        let text = mutant.apply(sources.get(&mutant.file)?)?;
        Some(Chosen { mutant, text })
    });
    Ok(chosen.collect())
}

fn covered_lines(coverage: Option<&Judgement>) -> BTreeMap<String, Vec<u32>> {
    let files = coverage.into_iter().flat_map(|coverage| &coverage.files);
    let lines = files.map(|file| (file.path.clone(), file.lines_with(LineVerdict::Covered).collect::<Vec<_>>()));
    lines.filter(|(_, lines)| !lines.is_empty()).collect()
}

/// "Nothing to mutate" is not a pass.
fn nothing(why: &str) -> Stop {
    Reason::new("nothing_to_mutate", format!("mutants: {why}")).into()
}

#[cfg(test)]
#[path = "built_in_tests.rs"]
mod tests;
