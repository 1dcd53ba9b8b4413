//! Which tests of the base still run.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::conclude::Observed;
use super::job::job;
use super::request::Runner;
use super::runs::{check_isolation, known_code};
use super::{Case, Stop, Work, weakening};
use crate::blocking::spawn_blocking;
use crate::coverage::SourceRules;
use crate::definition::{Definition, GateDefinition};
use crate::evidence::{self, DoubtCode};
use crate::finding::{InfraError, Reason};
use crate::integrity::{self, Explanation, TestResult, TestStatus, compare_reports};
use crate::report::{self, Tests};
use crate::run::Exit;

impl<R: Runner> Work<'_, R> {
    /// Tests that ran at the base must still run. The base's tests run only if the change could have removed some.
    pub(super) async fn compare_tests(
        &self,
        definition: &Definition,
        gate: &GateDefinition,
        observed: &Observed,
        case: &mut Case,
    ) -> Result<(), Stop> {
        let (Some(tests), Some(archive)) = (&observed.tests, &self.subject.base_archive) else { return Ok(()) };
        if tests.skipped == 0 && !self.touches_tests(definition).await? {
            return Ok(());
        }
        let started = Instant::now();
        let terms = self.terms(gate);
        let bundle = self.runner.run(archive, job(definition, gate, &terms)).await?;
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
            case.doubt(DoubtCode::BaseTestsUnknown);
            return Ok(());
        };
        check_isolation(&run, terms.minimum_sandbox)?;
        let of_base = self.observe(gate, run, Arc::new(bundle), None).await?;
        let Some(base_tests) = &of_base.tests else {
            case.doubt(DoubtCode::BaseTestsUnknown);
            return Ok(());
        };
        let explained = self.explained_tests(definition, base_tests).await?;
        let ran = tests_that_ran(tests, base_tests);
        let is_explained = |test: &TestResult| explained.iter().any(|one| explains(one, &test.name, &ran));
        let gone = compare_reports(&results(base_tests), &results(tests), is_explained);
        let listed: Vec<_> = gone.into_iter().map(evidence::Weakening::from).collect();
        weakening::settle(&listed, self.request, case)?;
        Ok(())
    }

    /// Tests of the base that the change renamed, merged, or deleted with their code.
    async fn explained_tests(&self, definition: &Definition, of_base: &Tests) -> Result<Vec<Explanation>, Stop> {
        let (subject, definition, cases) = (Arc::clone(&self.subject), definition.clone(), of_base.cases.clone());
        let explained = spawn_blocking(move || -> io::Result<Vec<Explanation>> {
            let Some(base) = &subject.base else { return Ok(Vec::new()) };
            let mut explained = integrity::explained_tests(base, &subject.head, &definition)?;
            let named = cases.iter().map(|case| (case.name.as_str(), case.file.as_deref()));
            explained.extend(integrity::doc_tests_of_gone_code(named, &subject.head)?);
            Ok(explained)
        });
        Ok(explained.await.map_err(InfraError::task_failed)?.map_err(InfraError::from)?)
    }

    /// Whether the change touches files that decide which tests run: tests, data that may be the table of one, and any
    /// source if tests take their rows from elsewhere.
    async fn touches_tests(&self, definition: &Definition) -> Result<bool, Stop> {
        let (subject, definition) = (Arc::clone(&self.subject), definition.clone());
        let touches = spawn_blocking(move || {
            let (Some(base), head) = (&subject.base, &subject.head) else { return Ok(false) };
            let sources = SourceRules::of_every_language();
            let differs = |path: &&String| base.files().get(*path) != head.files().get(*path);
            let decides = |path: &String| definition.tests.matches(path) || !sources.may_be_source(path);
            let changed: Vec<_> = base.files().keys().chain(head.files().keys()).filter(differs).collect();
            if changed.iter().any(|path| decides(path)) {
                return Ok(true);
            }
            Ok(!changed.is_empty() && integrity::rows_come_from_elsewhere(base, &definition)?)
        });
        Ok(touches.await.map_err(InfraError::task_failed)?.map_err(|error: io::Error| InfraError::from(error))?)
    }
}

fn results(tests: &Tests) -> Vec<TestResult> {
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
fn tests_that_ran<'a>(tests: &'a Tests, base: &Tests) -> Vec<(&'a str, bool)> {
    let known: BTreeSet<&str> = base.cases.iter().map(|case| case.name.as_str()).collect();
    let ran = tests.cases.iter().filter(|case| case.status != report::Status::Skipped);
    ran.map(|case| (case.name.as_str(), !known.contains(case.name.as_str()))).collect()
}

/// A test of the base that no longer runs went with its code, or another one does the same and did run. Its own name in
/// the source is no explanation: a test can be there and never start.
fn explains(one: &Explanation, gone: &str, ran: &[(&str, bool)]) -> bool {
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
