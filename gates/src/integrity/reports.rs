//! Compares what ran at the base with what ran in the change, from the reports of their runners.

use std::collections::BTreeMap;

use super::finding::{Weakening, WeakeningKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TestStatus {
    Passed,
    Failed,
    Skipped,
}

/// A test of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// The file, or what the runner gives instead.
    pub file: String,
    /// With the names of its suites.
    pub name: String,
    pub status: TestStatus,
}

/// Tests that passed or failed at the base and are gone or skipped now. A test that has the same name elsewhere has moved.
/// `excused` are the names (or their last parts) of tests whose deletion the static comparison has explained: renamed,
/// merged, or deleted with their code.
pub fn compare_reports(
    base: &[TestResult],
    head: &[TestResult],
    excused: impl Fn(&TestResult) -> bool,
) -> Vec<Weakening> {
    let mut by_name: BTreeMap<&str, Vec<&TestResult>> = BTreeMap::new();
    for test in head {
        by_name.entry(&test.name).or_default().push(test);
    }
    let mut findings = Vec::new();
    for (name, olds) in group(base) {
        let news = by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        let count = |tests: &[&TestResult], ran: bool| {
            tests.iter().filter(|test| (test.status != TestStatus::Skipped) == ran).count()
        };
        let lost = count(&olds, true).saturating_sub(count(news, true));
        if lost == 0 {
            continue;
        }
        let skipped = count(news, false).saturating_sub(count(&olds, false)).min(lost);
        let first =
            olds.iter().find(|test| !news.iter().any(|new| new.file == test.file && new.status != TestStatus::Skipped));
        let Some(test) = first.or(olds.first()) else { continue };
        if skipped > 0 {
            let message = format!("The test {name:?} ran at the base and is skipped now.");
            findings.push(Weakening::new(WeakeningKind::TestSkipped, &test.file, None, message));
        } else if !excused(test) {
            let message = format!("The test {name:?} ran at the base and does not run now.");
            findings.push(Weakening::new(WeakeningKind::TestDeleted, &test.file, None, message));
        }
    }
    findings
}

fn group(tests: &[TestResult]) -> BTreeMap<&str, Vec<&TestResult>> {
    let mut groups: BTreeMap<&str, Vec<&TestResult>> = BTreeMap::new();
    for test in tests.iter().filter(|test| test.status != TestStatus::Skipped) {
        groups.entry(&test.name).or_default().push(test);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(tests: &[(&str, &str, TestStatus)]) -> Vec<TestResult> {
        tests
            .iter()
            .map(|(file, name, status)| TestResult { file: (*file).into(), name: (*name).into(), status: *status })
            .collect()
    }

    #[test]
    fn tests_that_are_gone_or_skipped_are_found() {
        use TestStatus::{Failed, Passed, Skipped};
        let base = results(&[
            ("a", "one", Passed),
            ("a", "two", Failed),
            ("a", "three", Passed),
            ("a", "old skip", Skipped),
            ("b", "same", Passed),
            ("c", "same", Passed),
        ]);
        let head = results(&[("b", "one", Passed), ("a", "two", Skipped), ("c", "same", Passed), ("a", "new", Passed)]);
        let found = compare_reports(&base, &head, |_| false);
        let kinds: Vec<(WeakeningKind, &str)> =
            found.iter().map(|finding| (finding.kind, finding.path.as_str())).collect();
        assert_eq!(
            kinds,
            [(WeakeningKind::TestDeleted, "b"), (WeakeningKind::TestDeleted, "a"), (WeakeningKind::TestSkipped, "a")]
        );
        assert!(compare_reports(&base, &base, |_| false).is_empty());
        assert_eq!(compare_reports(&base, &head, |test| test.name == "three").len(), 2);
    }
}
