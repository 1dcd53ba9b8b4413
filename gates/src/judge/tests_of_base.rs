//! Which tests of the base still run.

use std::collections::BTreeSet;

use crate::integrity::{Explanation, TestResult, TestStatus};
use crate::report::{self, Tests};

pub fn results(tests: &Tests) -> Vec<TestResult> {
    let result = |case: &report::Case| TestResult {
        file: case.file.clone().unwrap_or_else(|| case.suite.clone()),
        name: case.name.clone(),
        status: match case.status {
            report::Status::Passed => TestStatus::Passed,
            report::Status::Failed | report::Status::Errored => TestStatus::Failed,
            report::Status::Skipped => TestStatus::Skipped,
        },
    };
    tests.cases.iter().map(result).collect()
}

/// The names of the tests that ran, each with whether the base had no test with it.
pub fn tests_that_ran<'a>(tests: &'a Tests, base: &Tests) -> Vec<(&'a str, bool)> {
    let known: BTreeSet<&str> = base.cases.iter().map(|case| case.name.as_str()).collect();
    let ran = tests.cases.iter().filter(|case| case.status != report::Status::Skipped);
    ran.map(|case| (case.name.as_str(), !known.contains(case.name.as_str()))).collect()
}

/// A test of the base that no longer runs went with its code, or another one does the same and did run. Its own name in
/// the source is no explanation: a test can be there and never start.
pub fn explains(one: &Explanation, gone: &str, ran: &[(&str, bool)]) -> bool {
    one.names.iter().any(|name| is_named(name, gone))
        && one.successor.as_ref().is_none_or(|successor| {
            ran.iter().any(|(reported, is_new)| {
                let is_it = |name: &String| is_named(name, reported) || (*is_new && is_filled(name, reported));
                *reported != gone && successor.iter().any(is_it)
            })
        })
}

/// Whether a test of a report is the one with this name in the source. Reports add suites before it and put parameters
/// after it.
fn is_named(name: &str, reported: &str) -> bool {
    let last = reported.rsplit(" > ").next().unwrap_or(reported);
    let last = last.rsplit("::").next().unwrap_or(last);
    reported == name || last == name || last.strip_prefix(name).is_some_and(|rest| rest.starts_with('['))
}

/// Whether a reported name is this one with its placeholders (`%i`, `$name`) filled in.
fn is_filled(name: &str, reported: &str) -> bool {
    let last = reported.rsplit(" > ").next().unwrap_or(reported);
    let fixed = name.split(['%', '$']).next().unwrap_or_default();
    fixed.len() < name.len() && (last.starts_with(fixed) || reported.starts_with(fixed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explanation(name: &str, successor: Option<&str>) -> Explanation {
        let both = |name: &str| [format!("suite > {name}"), name.to_owned()];
        Explanation { names: both(name), successor: successor.map(both) }
    }

    #[test]
    fn a_test_that_is_in_the_source_and_does_not_run_is_not_explained() {
        assert!(!explains(&explanation("adds", Some("adds")), "suite > adds", &[("suite > other", true)]));
        // Another test has the same name, and the report of the base counted both.
        assert!(!explains(&explanation("adds", Some("adds")), "suite > adds", &[("suite > adds", false)]));
        assert!(!explains(&explanation("adds", Some("sums")), "suite > adds", &[("suite > other", true)]));
        // A table without rows.
        assert!(!explains(&explanation("adds", Some("%s")), "suite > adds", &[("suite > other", false)]));
    }

    #[test]
    fn a_test_that_another_one_replaces_or_whose_code_is_gone_is_explained() {
        assert!(explains(&explanation("adds", Some("sums")), "suite > adds", &[("suite > sums", true)]));
        assert!(explains(&explanation("adds", None), "adds", &[]));
        assert!(explains(&explanation("test_add", Some("test_add")), "test_add", &[("test_add[1-2]", true)]));
        assert!(explains(&explanation("adds", Some("adds %i")), "suite > adds", &[("suite > adds 7", true)]));
        assert!(explains(&explanation("adds", Some("sums")), "money::tests::adds", &[("money::tests::sums", false)]));
    }
}
