//! Whether a change weakens its own checks: configuration, tests, ignore comments.
//!
//! Static: it compares the base's files with the change's. [`compare_reports`] adds what only a run can tell. An honest
//! change has no finding. A finding never fails by itself: a person, or the tenant's policy, decides.
//!
//! What it cannot see: an assertion that demands less (`toBeDefined` for `toBe(3)`), a changed expectation, a test that
//! never reaches its assertions for reasons of its own, a program that behaves differently under test, a new version of a
//! tool that checks less. Mutants and coverage of changed lines answer some of these, a reviewer the rest.

mod change;
mod definition_change;
mod difference;
mod directives;
mod doc_tests;
mod finding;
mod hidden;
mod ignores;
mod lex;
mod meaning;
mod protected;
mod reports;
mod test_cases;

#[cfg(test)]
mod corpus;

use std::io;

pub use difference::Difference;
pub use doc_tests::of_gone_code as doc_tests_of_gone_code;
pub use finding::{Integrity, Weakening, WeakeningKind};
pub use reports::{TestResult, TestStatus, compare_reports};
pub use test_cases::{Explanation, rows_come_from_elsewhere};

use crate::definition::Definition;
use crate::snapshot::Snapshot;
use change::Changes;

/// The base's tests that are gone or renamed for a reason: the change has them elsewhere or under another name, or their
/// code is gone too. For [`compare_reports`].
pub fn explained_tests(
    base: &Snapshot,
    head: &Snapshot,
    definition_of_base: &Definition,
) -> io::Result<Vec<Explanation>> {
    let changes = Changes::between(base, head)?;
    Ok(test_cases::explained(base, head, &changes, definition_of_base))
}

/// Compares a change with its base. What counts is the base's definition: its tests, its protected files, its ignored
/// ones. Fails only if a file cannot be read from the disk.
pub fn compare(
    base: &Snapshot,
    head: &Snapshot,
    definition_of_base: &Definition,
    definition_of_head: &Definition,
) -> io::Result<Integrity> {
    let changes = Changes::between(base, head)?;
    let mut findings = changes.unreadable(definition_of_base);
    findings.extend(checks(base, head, &changes, definition_of_base, definition_of_head));
    findings.extend(test_cases::find(base, head, &changes, definition_of_base));
    findings.extend(ignores::find(&changes, definition_of_base));
    findings.extend(hidden::find(&changes));
    Ok(Integrity::new(findings))
}

/// Compares the checks alone: the definition and the protected files.
pub fn compare_checks(
    base: &Snapshot,
    head: &Snapshot,
    definition_of_base: &Definition,
    definition_of_head: &Definition,
) -> io::Result<Integrity> {
    let changes = Changes::between(base, head)?;
    Ok(Integrity::new(checks(base, head, &changes, definition_of_base, definition_of_head)))
}

fn checks(
    base: &Snapshot,
    head: &Snapshot,
    changes: &Changes,
    definition_of_base: &Definition,
    definition_of_head: &Definition,
) -> Vec<Weakening> {
    let mut findings: Vec<_> = definition_change::find(changes, definition_of_base, definition_of_head);
    findings.extend(protected::find(base, head, changes, definition_of_base, definition_of_head));
    findings
}

#[cfg(test)]
mod hostile_tests;
