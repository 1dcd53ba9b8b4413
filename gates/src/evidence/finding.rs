//! What linters, type checkers, auditors and test runners reported.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Listed, MAX_LISTED};
use crate::report;

pub use crate::report::{Finding, Severity};

/// The findings of all reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Findings {
    /// The number of findings of each severity. It counts all of them.
    pub by_severity: BTreeMap<Severity, u64>,
    #[serde(flatten)]
    pub list: Listed<Finding>,
}

impl Findings {
    /// Counts all findings, and lists the most severe ones first.
    pub fn of(mut findings: Vec<Finding>) -> Self {
        let mut by_severity = BTreeMap::new();
        for finding in &findings {
            *by_severity.entry(finding.severity).or_default() += 1;
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Self { by_severity, list: Listed::of(findings) }
    }
}

impl Findings {
    /// Adds those of another command.
    pub fn add(&mut self, other: Self) {
        for (severity, count) in other.by_severity {
            *self.by_severity.entry(severity).or_default() += count;
        }
        self.list.total += other.list.total;
        self.list.listed.extend(other.list.listed);
        self.list.listed.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        self.list.listed.truncate(MAX_LISTED);
    }
}

/// The tests that ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Tests {
    pub total: u64,
    pub passed: u64,
    pub failed: u64,
    pub errored: u64,
    pub skipped: u64,
    pub failures: Listed<TestFailure>,
}

impl Tests {
    /// The counts, and the tests that failed.
    pub fn of(tests: &report::Tests) -> Self {
        let failed =
            tests.cases.iter().filter(|case| matches!(case.status, report::Status::Failed | report::Status::Errored));
        Self {
            total: tests.total,
            passed: tests.passed,
            failed: tests.failed,
            errored: tests.errored,
            skipped: tests.skipped,
            failures: Listed::of(failed.map(|case| TestFailure {
                suite: case.suite.clone(),
                name: case.name.clone(),
                file: case.file.clone(),
                message: case.message.clone().unwrap_or_default(),
            })),
        }
    }
}

/// A test that failed or ended with an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct TestFailure {
    pub suite: String,
    pub name: String,
    pub file: Option<String>,
    pub message: String,
}

impl TestFailure {
    /// How attestations name the test.
    pub fn full_name(&self) -> String {
        if self.suite.is_empty() { self.name.clone() } else { format!("{} > {}", self.suite, self.name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_severe_findings_are_listed_and_all_are_counted() {
        let finding = |severity, line| Finding {
            severity,
            tool: "t".into(),
            file: "f".into(),
            line: Some(line),
            column: None,
            end_line: None,
            rule: None,
            message: "m".into(),
            url: None,
        };
        let mut all: Vec<Finding> = (0..300).map(|line| finding(Severity::Warning, line)).collect();
        all.push(finding(Severity::Error, 1_000));
        let findings = Findings::of(all);
        assert_eq!((findings.list.total, findings.list.listed.len()), (301, 200));
        assert_eq!(findings.list.listed[0].line, Some(1_000));
        assert_eq!(findings.list.listed[1].line, Some(0), "findings of one severity keep their order");
        assert_eq!(findings.by_severity, BTreeMap::from([(Severity::Warning, 300), (Severity::Error, 1)]));
    }
}
