//! What a run of a gate's command means.

use shared::domain::digest::sha256_hex;

use super::job::shown_place;
use crate::coverage::{self, CoverageError, Judgement};
use crate::definition::{Format, GateDefinition, Severity};
use crate::evidence::{self, ReportOutcome};
use crate::finding::{Reason, error_lines};
use crate::report::{self, Ended, Parsed, Tests};
use crate::run::{Bundle, CommandRun, Exit, Found, Limit, ReportFile};

/// Everything that the verdict depends on besides the run.
pub struct Context<'a> {
    pub gate: &'a GateDefinition,
    /// All files of the workspace, for paths in reports.
    pub paths: Vec<&'a str>,
    /// The changed lines, if the gate measures their coverage.
    pub changes: Option<&'a Result<coverage::ChangeSet, CoverageError>>,
    pub coverage: coverage::Options,
}

/// What a run showed. Reports that could not be read are in `problem`.
#[derive(Debug, Default)]
pub struct Observed {
    pub reports: Vec<evidence::Report>,
    /// One for each format.
    pub parsed: Vec<Parsed>,
    pub tests: Option<Tests>,
    pub coverage: Option<Judgement>,
    /// The first report that cannot be used.
    problem: Option<Reason>,
}

/// Reads every report of a run.
pub fn observe(run: &CommandRun, bundle: &Bundle, context: &Context<'_>) -> Observed {
    let mut observed = Observed::default();
    let mut measured = Vec::new();
    for file in &run.reports {
        let Some(expected) = context.gate.reports.get(file.report) else { continue };
        let path = match file.path.as_str() {
            "stdout" => shown_place(expected),
            path => path.to_owned(),
        };
        let bytes = match content(file, bundle) {
            Ok(bytes) => bytes,
            Err((outcome, why)) => {
                observed.reports.push(listed(expected.format, &path, None, outcome));
                let code = match outcome {
                    ReportOutcome::Missing => "report_missing",
                    ReportOutcome::Stale => "report_stale",
                    _ => "report_unparsable",
                };
                observed.fail(Reason::new(code, format!("the report {path} {why}")));
                continue;
            }
        };
        let read = match expected.format.report() {
            None => coverage::read_report(bytes, coverage_format(expected.format))
                .map(|(report, _)| measured.push(report))
                .map_err(|error| Reason::new(error.code, error.message)),
            Some(format) => observed.read(format, bytes, run, context),
        };
        let outcome = if read.is_ok() { ReportOutcome::Read } else { ReportOutcome::Unparsable };
        observed.reports.push(listed(expected.format, &path, Some(bytes), outcome));
        if let Err(reason) = read {
            observed.fail(Reason::new(reason.code, format!("{path}: {}", reason.message)));
        }
    }
    // A runner that forgets a report, or whose answer is forged, must not pass for it.
    for (index, expected) in context.gate.reports.iter().enumerate() {
        if !run.reports.iter().any(|file| file.report == index) {
            let path = shown_place(expected);
            observed.reports.push(listed(expected.format, &path, None, ReportOutcome::Missing));
            observed.fail(Reason::new("report_missing", format!("the runner says nothing about the report {path}")));
        }
    }
    if let Some(changes) = context.changes {
        observed.coverage = Some(match changes {
            Ok(changes) => {
                let options = coverage::Options { roots: vec![run.root.clone()], ..context.coverage.clone() };
                coverage::judge(changes, &measured, &options)
            }
            Err(error) => Judgement::unjudged(error.clone(), context.coverage.threshold),
        });
    }
    observed
}

impl Observed {
    fn fail(&mut self, reason: Reason) {
        self.problem.get_or_insert(reason);
    }

    fn read(
        &mut self,
        format: report::Format,
        bytes: &[u8],
        run: &CommandRun,
        context: &Context<'_>,
    ) -> Result<(), Reason> {
        let place = report::Place::new(&run.root, context.paths.iter().copied());
        let output = format!("{}\n{}", run.output.head.as_deref().unwrap_or_default(), run.output.tail);
        let parsed = report::read(format, bytes, &place, Ended { exit: run.exit, output: &output })?;
        match self.parsed.iter_mut().find(|known| known.format == parsed.format) {
            Some(known) => known.merge(parsed),
            None => self.parsed.push(parsed),
        }
        self.tests = self.parsed.iter().find_map(|parsed| parsed.tests.clone());
        Ok(())
    }

    /// Why the gate passes, or why it fails.
    pub fn verdict(&self, run: &CommandRun, gate: &GateDefinition) -> Result<Reason, Reason> {
        let name = &gate.name;
        let named = |reason: Reason| Reason::new(reason.code, format!("{name}: {}", reason.message));
        ended_by_itself(run, gate).map_err(named)?;
        let policy = report::Policy::default();
        for parsed in &self.parsed {
            if let Err(failure) = report::judge(parsed, run.exit, &policy) {
                return tolerated(gate, parsed, failure.reason).map(named).map_err(named);
            }
        }
        if run.exit != Exit::Code(0) && !self.explains_exit(run) {
            return Err(named(command_failed(run, gate)));
        }
        if let Some(problem) = &self.problem {
            return Err(named(problem.clone()));
        }
        if let Some(coverage) = &self.coverage {
            let reason = Reason::new(coverage.code, coverage.reason.clone());
            return match coverage.verdict {
                coverage::Verdict::Passed => Ok(named(reason)),
                coverage::Verdict::Failed | coverage::Verdict::CannotJudge => Err(named(reason)),
            };
        }
        match self.parsed.first().map(|parsed| report::judge(parsed, run.exit, &policy)) {
            Some(Ok(reason)) => Ok(named(reason)),
            _ => Ok(named(Reason::new("command_succeeded", format!("`{}` succeeded", shown_command(gate))))),
        }
    }

    /// A report accounts for an exit code that is not 0, and its own judgement let it pass.
    fn explains_exit(&self, run: &CommandRun) -> bool {
        let policy = report::Policy::default();
        self.parsed.iter().any(|parsed| parsed.found.total() > 0 && report::judge(parsed, run.exit, &policy).is_ok())
    }
}

fn coverage_format(format: Format) -> Option<coverage::Format> {
    match format {
        Format::Istanbul => Some(coverage::Format::Istanbul),
        Format::Lcov => Some(coverage::Format::Lcov),
        Format::Cobertura => Some(coverage::Format::Cobertura),
        _ => None,
    }
}

/// A gate that only warns passes with its findings. It still fails if it could not do its work.
fn tolerated(gate: &GateDefinition, parsed: &Parsed, reason: Reason) -> Result<Reason, Reason> {
    let only_findings = reason.code == "findings_found" && parsed.tool_failure.is_none();
    if gate.severity == Severity::Warning && only_findings {
        return Ok(Reason::new("warnings_only", format!("only warns: {}", reason.message)));
    }
    Err(reason)
}

fn ended_by_itself(run: &CommandRun, gate: &GateDefinition) -> Result<(), Reason> {
    let command = shown_command(gate);
    match run.exit {
        Exit::Code(_) => Ok(()),
        Exit::TimedOut => Err(Reason::new("timed_out", format!("`{command}` timed out and was killed"))),
        Exit::OverLimit(Limit::Memory) => {
            Err(Reason::new("memory_exceeded", format!("`{command}` used too much memory and was killed")))
        }
        Exit::OverLimit(Limit::Disk) => {
            Err(Reason::new("disk_exceeded", format!("`{command}` wrote too much and was killed")))
        }
        Exit::Signal(signal) => {
            let message = format!("`{command}` was killed by signal {signal}{}", printed(run));
            Err(Reason::new("command_killed", message))
        }
    }
}

fn command_failed(run: &CommandRun, gate: &GateDefinition) -> Reason {
    let Exit::Code(code) = run.exit else { return Reason::new("command_failed", "the command failed") };
    let message = format!("`{}` exited with code {code}{}", shown_command(gate), printed(run));
    Reason::new("command_failed", message)
}

fn printed(run: &CommandRun) -> String {
    let output = format!("{}\n{}", run.output.head.as_deref().unwrap_or_default(), run.output.tail);
    match error_lines(&output) {
        lines if lines.is_empty() => " and printed nothing".to_owned(),
        lines => format!(":\n{lines}"),
    }
}

/// The command as a person would type it.
pub fn shown_command(gate: &GateDefinition) -> String {
    gate.command.join(" ")
}

fn content<'a>(file: &ReportFile, bundle: &'a Bundle) -> Result<&'a [u8], (ReportOutcome, String)> {
    match &file.found {
        Found::File { entry } => match bundle.files.get(entry) {
            Some(bytes) => Ok(bytes),
            None => Err((ReportOutcome::Missing, "is not in the bundle of the runner".to_owned())),
        },
        Found::Missing => Err((ReportOutcome::Missing, "was not written by this run".to_owned())),
        Found::Stale => Err((ReportOutcome::Stale, "was written before the command started".to_owned())),
        Found::Refused { why } => Err((ReportOutcome::Unparsable, format!("cannot be used: {why}"))),
    }
}

fn listed(format: Format, path: &str, bytes: Option<&[u8]>, outcome: ReportOutcome) -> evidence::Report {
    evidence::Report {
        format: format.name().to_owned(),
        path: path.to_owned(),
        sha256: bytes.map(sha256_hex),
        size: bytes.map_or(0, |bytes| bytes.len() as u64),
        outcome,
    }
}
