//! Reads what linters, type checkers, auditors and test runners report: findings and tests, and whether they pass.
//!
//! Pure: bytes in, findings out. It fails closed. A report that is empty, cut off, of another format or about nothing is
//! an error, never "no findings". To add a format, add a row to [`Format`] and a function to [`read`].

mod audit;
mod cargo;
mod cargo_test;
mod eslint;
mod go_test;
mod judge;
mod junit;
mod mypy;
mod place;
mod pyright;
mod ruff;
mod sarif;
mod text;
mod tsc;

use serde::{Deserialize, Serialize};

use crate::finding::Reason;
pub use crate::run::Exit;
pub use judge::{Failure, Listed, Policy, judge};
pub use place::Place;

/// The largest report that is read.
pub const MAX_REPORT_BYTES: usize = 64 * 1024 * 1024;
/// How many findings of a report are kept. The counts are of all.
const MAX_FINDINGS: usize = 20_000;
/// A report with more tests is refused: a list with holes cannot be compared with the base.
const MAX_CASES: usize = 200_000;
const MAX_MESSAGE_CHARS: usize = 2_000;
const MAX_NAME_CHARS: usize = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Junit,
    Sarif,
    Eslint,
    Ruff,
    Tsc,
    Cargo,
    Mypy,
    Pyright,
    GoTest,
    CargoTest,
    NpmAudit,
    PipAudit,
    CargoAudit,
}

impl Format {
    pub const ALL: [Self; 13] = [
        Self::Junit,
        Self::Sarif,
        Self::Eslint,
        Self::Ruff,
        Self::Tsc,
        Self::Cargo,
        Self::Mypy,
        Self::Pyright,
        Self::GoTest,
        Self::CargoTest,
        Self::NpmAudit,
        Self::PipAudit,
        Self::CargoAudit,
    ];

    /// As people know it, for messages.
    pub fn title(self) -> &'static str {
        match self {
            Self::Junit => "JUnit XML",
            Self::Sarif => "SARIF",
            Self::Eslint => "ESLint JSON",
            Self::Ruff => "ruff JSON",
            Self::Tsc => "tsc output",
            Self::Cargo => "cargo JSON",
            Self::Mypy => "mypy output",
            Self::Pyright => "pyright JSON",
            Self::GoTest => "go test JSON",
            Self::CargoTest => "cargo test output",
            Self::NpmAudit => "npm audit JSON",
            Self::PipAudit => "pip-audit JSON",
            Self::CargoAudit => "cargo audit JSON",
        }
    }
}

#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Note,
    Warning,
    Error,
}

#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    pub tool: String,
    /// Relative to the workspace, with slashes. Empty if the finding has no file.
    pub file: String,
    /// Lines and columns count from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl Finding {
    fn new(severity: Severity, tool: &str, message: &str) -> Self {
        Self {
            severity,
            tool: text::clean(tool, MAX_NAME_CHARS),
            file: String::new(),
            line: None,
            column: None,
            end_line: None,
            rule: None,
            message: text::clean(message, MAX_MESSAGE_CHARS),
            url: None,
        }
    }

    /// A finding of a check that NOFX makes itself. `place` is path, line and column.
    pub fn of(severity: Severity, tool: &str, message: &str, place: (&str, u32, u32), rule: &str) -> Self {
        let (path, line, column) = place;
        Self::new(severity, tool, message).at(path.to_owned(), Some(line), Some(column)).rule(Some(rule))
    }

    fn at(mut self, file: String, line: Option<u32>, column: Option<u32>) -> Self {
        self.file = file;
        self.line = line.filter(|line| *line > 0);
        self.column = column.filter(|column| *column > 0);
        self
    }

    fn until(mut self, end_line: Option<u32>) -> Self {
        self.end_line = end_line.filter(|end| *end > 0);
        self
    }

    fn rule(mut self, rule: Option<&str>) -> Self {
        self.rule = rule.map(|rule| text::clean(rule, MAX_NAME_CHARS)).filter(|rule| !rule.is_empty());
        self
    }

    /// A link that people may click: https and http only.
    fn url(mut self, url: Option<&str>) -> Self {
        let is_link = |url: &&str| url.starts_with("https://") || url.starts_with("http://");
        self.url = url.filter(is_link).map(|url| text::clean(url, MAX_NAME_CHARS));
        self
    }
}

/// How many findings there are of each severity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub error: u64,
    pub warning: u64,
    pub note: u64,
}

impl Counts {
    pub fn total(self) -> u64 {
        self.error + self.warning + self.note
    }

    /// Findings of this severity or worse.
    pub fn at_least(self, severity: Severity) -> u64 {
        match severity {
            Severity::Error => self.error,
            Severity::Warning => self.error + self.warning,
            Severity::Note => self.total(),
        }
    }

    fn add(&mut self, severity: Severity) {
        match severity {
            Severity::Error => self.error += 1,
            Severity::Warning => self.warning += 1,
            Severity::Note => self.note += 1,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Passed,
    Failed,
    /// The test could not run, or its setup or teardown failed.
    Errored,
    Skipped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    pub suite: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tests {
    pub total: u64,
    pub passed: u64,
    pub failed: u64,
    pub errored: u64,
    pub skipped: u64,
    pub cases: Vec<Case>,
}

/// What a report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    pub format: Format,
    /// The worst first, then by place. At most 20,000; `found` counts all.
    pub findings: Vec<Finding>,
    pub found: Counts,
    /// Findings that a comment or a setting of the workspace silenced.
    pub suppressed: u64,
    /// Files, packages or dependencies that the tool looked at. `None` if the report does not say.
    pub checked: Option<u64>,
    pub tests: Option<Tests>,
    /// The tool says that it did not finish.
    pub tool_failure: Option<String>,
}

impl Parsed {
    fn new(format: Format) -> Self {
        Self {
            format,
            findings: Vec::new(),
            found: Counts::default(),
            suppressed: 0,
            checked: None,
            tests: None,
            tool_failure: None,
        }
    }

    fn add(&mut self, finding: Finding) {
        self.found.add(finding.severity);
        // Twice the limit, so that errors behind many notes still displace them when the list is sorted and cut.
        if self.findings.len() >= MAX_FINDINGS * 2 {
            self.sort();
        }
        self.findings.push(finding);
    }

    fn sort(&mut self) {
        self.findings.sort_by(|a, b| {
            b.severity.cmp(&a.severity).then_with(|| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)))
        });
        self.findings.truncate(MAX_FINDINGS);
    }

    /// Adds a second report of the same format, for example of another package.
    pub fn merge(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.sort();
        self.found.error += other.found.error;
        self.found.warning += other.found.warning;
        self.found.note += other.found.note;
        self.suppressed += other.suppressed;
        // If one of them does not say what it looked at, the sum is unknown.
        self.checked = self.checked.zip(other.checked).map(|(a, b)| a + b);
        self.tool_failure = self.tool_failure.take().or(other.tool_failure);
        if let Some(more) = other.tests {
            let tests = self.tests.get_or_insert_default();
            tests.total += more.total;
            tests.passed += more.passed;
            tests.failed += more.failed;
            tests.errored += more.errored;
            tests.skipped += more.skipped;
            tests.cases.extend(more.cases);
        }
    }
}

/// Why a report cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReportError {
    pub code: &'static str,
    pub message: String,
}

impl ReportError {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn unparsable(format: Format, why: impl std::fmt::Display) -> Self {
        Self::new("report_unparsable", format!("the report cannot be read as {}: {why}", format.title()))
    }
}

impl From<ReportError> for Reason {
    fn from(error: ReportError) -> Self {
        Self::new(error.code, error.message)
    }
}

/// How the command that wrote the report ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    pub exit: Exit,
    /// What it printed, or the end of that. Some tools say only there that they found no file.
    pub output: &'a str,
}

/// Reads a report.
pub fn read(format: Format, bytes: &[u8], place: &Place<'_>, ended: Ended<'_>) -> Result<Parsed, ReportError> {
    let parsed = read_format(format, bytes, place, ended.exit);
    let mut parsed = parsed.map_err(|mut error| {
        error.message = format!("{}; the command {}", error.message, judge::describe(ended.exit));
        error
    })?;
    if judge::says_nothing_checked(format, ended.output) {
        parsed.checked = Some(0);
    }
    parsed.sort();
    Ok(parsed)
}

fn read_format(format: Format, bytes: &[u8], place: &Place<'_>, exit: Exit) -> Result<Parsed, ReportError> {
    if bytes.len() > MAX_REPORT_BYTES {
        let message = format!("the report has {} bytes; the limit is {MAX_REPORT_BYTES}", bytes.len());
        return Err(ReportError::new("report_too_large", message));
    }
    let text = text::decode(format, bytes)?;
    // tsc prints nothing if all is well.
    let may_be_empty = format == Format::Tsc && exit == Exit::Code(0);
    // mypy prints one line break.
    let may_be_blank = may_be_empty || (format == Format::Mypy && exit == Exit::Code(0) && !text.is_empty());
    if text.trim().is_empty() && !may_be_blank {
        return Err(ReportError::new("report_empty", format!("the report ({}) is empty", format.title())));
    }
    match format {
        Format::Junit => junit::read(&text, place),
        Format::Sarif => sarif::read(&text, place),
        Format::Eslint => eslint::read(&text, place),
        Format::Ruff => ruff::read(&text, place),
        Format::Tsc => tsc::read(&text, place),
        Format::Cargo => cargo::read(&text, place),
        Format::Mypy => mypy::read(&text, place),
        Format::Pyright => pyright::read(&text, place),
        Format::GoTest => go_test::read(&text, place),
        Format::CargoTest => cargo_test::read(&text, place),
        Format::NpmAudit => audit::read_npm(&text),
        Format::PipAudit => audit::read_pip(&text),
        Format::CargoAudit => audit::read_cargo(&text),
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
