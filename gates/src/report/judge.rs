//! Decides whether a report and the exit code of its command mean "passed".
//!
//! Both must say so. A report without problems next to a failed command, or the other way round, fails and names both.

use serde::Serialize;

use crate::finding::Reason;
use crate::run::Limit;

use super::{Counts, Exit, Finding, Format, Parsed, Severity, Tests};

/// How many findings a message names.
const NAMED: usize = 3;
const NAMED_MESSAGE_CHARS: usize = 160;
/// How many findings go into the evidence itself.
const LISTED: usize = 100;

/// What a gate tolerates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The least severe finding that fails the gate.
    pub fail_on: Severity,
    /// More skipped tests fail the gate.
    pub max_skipped: Option<u64>,
    /// A report that does not say what it looked at fails the gate.
    pub needs_checked: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { fail_on: Severity::Error, max_skipped: None, needs_checked: false }
    }
}

/// The start of a list, and how long the list is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed<T> {
    pub total: u64,
    pub first: Vec<T>,
}

impl<T: Clone> Listed<T> {
    pub fn new(items: &[T], total: u64, limit: usize) -> Self {
        Self { total, first: items.iter().take(limit).cloned().collect() }
    }
}

impl Parsed {
    /// The findings for the evidence.
    pub fn listed(&self) -> Listed<Finding> {
        Listed::new(&self.findings, self.found.total(), LISTED)
    }
}

/// Why a gate fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    pub findings: Listed<Finding>,
}

/// Judges a report and how its command ended.
pub fn judge(parsed: &Parsed, exit: Exit, policy: &Policy) -> Result<Reason, Box<Failure>> {
    let failure = |code, message: String| {
        let message = with_findings(message, parsed);
        Err(Box::new(Failure { reason: Reason::new(code, message), findings: parsed.listed() }))
    };
    match exit {
        Exit::TimedOut => return failure("timed_out", format!("the command {}", describe(exit))),
        Exit::Signal(_) => return failure("command_killed", format!("the command {}", describe(exit))),
        Exit::OverLimit(Limit::Memory) => return failure("memory_exceeded", format!("the command {}", describe(exit))),
        Exit::OverLimit(Limit::Disk) => return failure("disk_exceeded", format!("the command {}", describe(exit))),
        Exit::Code(_) => {}
    }
    if let Some(why) = &parsed.tool_failure {
        return failure("tool_failed", format!("{why}; the command {}", describe(exit)));
    }
    let succeeded = exit == Exit::Code(0);
    let bad = parsed.found.at_least(policy.fail_on);
    let has_errors = parsed.found.error > 0;
    if has_errors && succeeded && !may_succeed_with_errors(parsed.format) {
        let message = format!("the report has {}, but the command ended with exit code 0", count(parsed.found));
        return failure("report_disagrees", message);
    }
    if let Some(tests) = &parsed.tests
        && let Some((code, message)) = judge_tests(tests, exit, policy)
    {
        return failure(code, message);
    }
    if bad > 0 {
        return failure("findings_found", format!("{} found", count(parsed.found)));
    }
    let nothing = match parsed.checked {
        Some(0) => Some("the tool looked at nothing, so it found nothing"),
        None if policy.needs_checked => Some("the report does not say how many files the tool looked at"),
        _ => None,
    };
    if let Some(message) = nothing {
        return failure("nothing_checked", format!("{message}; the command {}", describe(exit)));
    }
    if !succeeded && !may_fail_without_errors(parsed, exit) {
        let message = format!("the command {}, but the report has {}", describe(exit), count(parsed.found));
        return failure("report_disagrees", message);
    }
    Ok(passed(parsed))
}

fn passed(parsed: &Parsed) -> Reason {
    if let Some(tests) = &parsed.tests {
        return Reason::new(
            "tests_passed",
            format!("{} of {} tests passed, {} skipped", tests.passed, tests.total, tests.skipped),
        );
    }
    let looked_at = parsed.checked.map(|checked| format!(" in {checked} files or packages")).unwrap_or_default();
    Reason::new("report_clean", format!("{}{looked_at}", count(parsed.found)))
}

fn judge_tests(tests: &Tests, exit: Exit, policy: &Policy) -> Option<(&'static str, String)> {
    let Tests { total, passed, failed, errored, skipped, .. } = tests;
    if failed + errored > 0 {
        let errors = if *errored > 0 { format!(" ({errored} of them could not run)") } else { String::new() };
        return Some(("tests_failed", format!("{} of {total} tests failed{errors}", failed + errored)));
    }
    if *total == 0 {
        return Some(("no_tests", format!("no test ran; the command {}", describe(exit))));
    }
    if *passed == 0 {
        return Some(("all_tests_skipped", format!("all {skipped} tests were skipped")));
    }
    match policy.max_skipped {
        Some(max) if *skipped > max => {
            Some(("too_many_skipped", format!("{skipped} tests were skipped; the gate allows {max}")))
        }
        _ => None,
    }
}

/// Scanners that write SARIF, and auditors with a level of their own, may end with 0 although they found something.
pub fn may_succeed_with_errors(format: Format) -> bool {
    matches!(format, Format::Sarif | Format::NpmAudit | Format::CargoAudit)
}

/// An auditor ends with 1 for any finding, also for those that the policy tolerates.
fn may_fail_without_errors(parsed: &Parsed, exit: Exit) -> bool {
    exit == Exit::Code(1) && parsed.found.total() > 0 && parsed.format == Format::NpmAudit
}

pub fn describe(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("ended with exit code {code}"),
        Exit::Signal(signal) => format!("was killed by signal {signal}"),
        Exit::TimedOut => "did not end in time".to_owned(),
        Exit::OverLimit(Limit::Memory) => "used too much memory and was killed".to_owned(),
        Exit::OverLimit(Limit::Disk) => "wrote too much and was killed".to_owned(),
    }
}

fn count(found: Counts) -> String {
    let part = |number: u64, name: &str| match number {
        0 => None,
        1 => Some(format!("1 {name}")),
        _ => Some(format!("{number} {name}s")),
    };
    let parts = [part(found.error, "error"), part(found.warning, "warning"), part(found.note, "note")];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "no findings".to_owned() } else { parts.join(", ") }
}

/// Adds the first findings, one a line.
fn with_findings(message: String, parsed: &Parsed) -> String {
    let mut lines = vec![message];
    for finding in parsed.findings.iter().take(NAMED) {
        let line = finding.line.map(|line| format!(":{line}")).unwrap_or_default();
        let place = if finding.file.is_empty() { String::new() } else { format!("{}{line}: ", finding.file) };
        let rule = finding.rule.as_deref().map(|rule| format!(" [{rule}]")).unwrap_or_default();
        let text: String =
            finding.message.lines().next().unwrap_or_default().chars().take(NAMED_MESSAGE_CHARS).collect();
        lines.push(format!("{place}{text}{rule}"));
    }
    let total = parsed.found.total();
    if total > NAMED as u64 {
        lines.push(format!("and {} more", total - NAMED as u64));
    }
    lines.join("\n")
}

/// Sentences with which a tool says that it looked at nothing although it ends with success.
pub fn says_nothing_checked(format: Format, output: &str) -> bool {
    let sentences: &[&str] = match format {
        Format::Ruff => &["No Python files found under the given path(s)"],
        Format::Mypy => &["There are no .py[i] files in directory", "error: Missing target module, package, files"],
        Format::Pyright => &["No source files found."],
        Format::Eslint => &["No files matching the pattern", "All files matched by"],
        Format::Tsc => &["error TS18003:", "error TS18002:"],
        Format::Cargo => &["does not have any targets", "no targets specified in the manifest"],
        // Their reports say it.
        Format::Junit
        | Format::Sarif
        | Format::GoTest
        | Format::CargoTest
        | Format::NpmAudit
        | Format::PipAudit
        | Format::CargoAudit => &[],
    };
    sentences.iter().any(|sentence| output.contains(sentence))
}
