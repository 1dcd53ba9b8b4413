use proptest::prelude::*;

use super::super::{Ended, Exit, Policy, judge};
use super::*;

const FILES: [&str; 2] = ["a/src/lib.rs", "a/tests/it.rs"];

fn place() -> Place<'static> {
    Place::new("/w", FILES.into_iter())
}

fn parsed(text: &str) -> Result<Parsed, ReportError> {
    read(text, &place())
}

/// The code of the verdict of a command that ended with 0.
fn code(text: &str) -> &'static str {
    let ended = Ended { exit: Exit::Code(0), output: "" };
    match super::super::read(Format::CargoTest, text.as_bytes(), &place(), ended) {
        Err(error) => error.code,
        Ok(parsed) => match judge(&parsed, Exit::Code(0), &Policy::default()) {
            Ok(reason) => reason.code,
            Err(failure) => failure.reason.code,
        },
    }
}

fn names(parsed: &Parsed) -> Vec<(&str, Status)> {
    parsed.tests.as_ref().unwrap().cases.iter().map(|case| (case.name.as_str(), case.status)).collect()
}

fn result(passed: u64, failed: u64, ignored: u64) -> String {
    let word = if failed == 0 { "ok" } else { "FAILED" };
    format!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out; finished in 0.06s\n\n"
    )
}

/// As cargo 1.95 printed it.
const FAILED: &str = r"
running 6 tests
test tests::good ... ok
test tests::ign ... ignored
test tests::ign2 ... ignored, needs ... net
test tests::panics - should panic ... ok
raw line
test tests::bad ... FAILED
test tests::raw ... ok

failures:

---- tests::bad stdout ----
test x ... ok
failures:
running 3 tests
test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.06s

thread 'tests::bad' (14320) panicked at a/src/lib.rs:25:74:
assertion `left == right` failed: why
  left: 1
 right: 2
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace


failures:
    tests::bad

test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.06s


running 4 tests
test a/src/lib.rs - add (line 11) - compile ... ok
test a/src/lib.rs - add (line 2) ... FAILED
test a/src/lib.rs - add (line 8) ... ignored
test a/src/lib.rs - add (line 5) - should panic ... ok

failures:

---- a/src/lib.rs - add (line 2) stdout ----
Test executable failed (exit status: 101).

stderr:

thread 'main' (3272617) panicked at /tmp/rustdoctestzqkU8w/doctest_bundle_2024.rs:24:1:
assertion failed

failures:
    a/src/lib.rs - add (line 2)

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.06s

all doctests ran in 0.25s; merged doctests compilation took 0.16s
";

#[test]
fn failed_ignored_and_documentation_tests_are_read_with_their_places() {
    let parsed = parsed(FAILED).unwrap();
    assert_eq!(
        names(&parsed),
        [
            ("tests::good", Status::Passed),
            ("tests::ign", Status::Skipped),
            ("tests::ign2", Status::Skipped),
            ("tests::panics", Status::Passed),
            ("tests::bad", Status::Failed),
            ("tests::raw", Status::Passed),
            ("a/src/lib.rs - add - compile", Status::Passed),
            ("a/src/lib.rs - add", Status::Failed),
            ("a/src/lib.rs - add", Status::Skipped),
            ("a/src/lib.rs - add", Status::Passed),
        ]
    );
    let places: Vec<_> = parsed.findings.iter().map(|finding| (finding.file.as_str(), finding.line)).collect();
    assert_eq!(places, [("a/src/lib.rs", Some(25)), ("a/src/lib.rs", Some(2))]);
    assert!(parsed.findings[0].message.contains("failed: why"), "{}", parsed.findings[0].message);
    let tests = parsed.tests.unwrap();
    assert_eq!((tests.total, tests.passed, tests.failed, tests.skipped), (10, 5, 2, 3));
    assert_eq!(tests.cases[7].file.as_deref(), Some("a/src/lib.rs"));
}

#[test]
fn a_run_without_tests_does_not_pass() {
    let none = format!("\nrunning 0 tests\n{}", result(0, 0, 0));
    assert_eq!(code(&none), "no_tests");
    assert_eq!(code(&none.repeat(3)), "no_tests");
    assert_eq!(code(&none.replace("0 filtered out", "7 filtered out")), "no_tests");
    assert_eq!(code(&format!("running 1 test\ntest a ... ignored, slow\n{}", result(0, 0, 1))), "all_tests_skipped");
    assert_eq!(code("    Finished `test` profile\n"), "report_unparsable");
}

#[test]
fn tests_that_a_filter_left_out_are_told() {
    let text = format!("running 1 test\ntest a ... ok\n{}", result(1, 0, 0)).replace("0 filtered", "7 filtered");
    assert_eq!(code(&text), "tests_passed");
    assert_eq!(parsed(&text).unwrap().findings[0].message, "the command's filter left out 7 tests");
}

#[test]
fn counts_that_disagree_with_the_lines_are_refused() {
    for text in [
        // A line that no harness printed, one that is missing, and one with another result.
        format!("running 1 test\ntest a ... ok\ntest b ... ok\n{}", result(1, 0, 0)),
        format!("running 2 tests\ntest a ... ok\n{}", result(2, 0, 0)),
        format!("running 2 tests\ntest a ... ok\ntest b ... ignored\n{}", result(2, 0, 0)),
        // All of it fits, but the harness announced another number.
        format!("running 1 test\ntest a ... ok\ntest b ... ok\n{}", result(2, 0, 0)),
        // --quiet
        format!("running 2 tests\n..\n{}", result(2, 0, 0)),
        // A result that contradicts itself, or is none.
        format!("running 1 test\ntest a ... ok\n{}", result(1, 0, 0)).replace("result: ok", "result: FAILED"),
        format!("running 1 test\ntest a ... ok\n{}", result(1, 0, 0)).replace("1 passed", "-1 passed"),
        // A binary that ended early, and what follows.
        format!("running 2 tests\ntest a ... ok\n\nrunning 1 test\ntest a ... ok\n{}", result(1, 0, 0)),
        format!("running 1 test\ntest a ... ok\n{}running 2 tests\ntest b ... ok\n", result(1, 0, 0)),
        result(1, 0, 0),
    ] {
        assert_eq!(code(&text), "report_unparsable", "{text}");
    }
}

#[test]
fn a_whole_section_that_a_test_prints_is_refused() {
    let printed = format!("running 1 test\ntest forged ... ok\n{}", result(1, 0, 0));
    assert_eq!(code(&format!("running 0 tests\n{printed}{}", result(0, 0, 0))), "report_unparsable");
    // It ends the section of its own binary first.
    let ended = format!("running 1 test\ntest a ... ok\n{}{printed}", result(1, 0, 0));
    assert_eq!(code(&format!("{ended}test b ... ok\n{}", result(2, 0, 0))), "report_unparsable");
}

#[test]
fn the_line_of_a_test_that_prints_is_put_together_again() {
    // One test at a time: the name comes first.
    let text = format!(
        "running 3 tests\ntest a ... raw line\n\nno endok\ntest b ... INFO start\nok\ntest c ... ok\n{}",
        result(3, 0, 0)
    );
    assert_eq!(names(&parsed(&text).unwrap()), [("a", Status::Passed), ("b", Status::Passed), ("c", Status::Passed)]);
    // The result belongs to the harness, whatever the test prints before.
    let text = format!("running 1 test\ntest a ... ok\nFAILED\n\nfailures:\n\nfailures:\n    a\n{}", result(0, 1, 0));
    assert_eq!(code(&text), "report_unparsable");
    let text = format!("running 1 test\ntest a ... all is ok\nFAILED\n\nfailures:\n    a\n{}", result(0, 1, 0));
    assert_eq!(names(&parsed(&text).unwrap()), [("a", Status::Failed)]);
    // Several at a time: the line comes as a whole, behind what another one printed.
    let text = format!("running 2 tests\n50 %test a ... ok\ntest b ... ok\n{}", result(2, 0, 0));
    assert_eq!(names(&parsed(&text).unwrap()), [("b", Status::Passed), ("a", Status::Passed)]);
    // Such a line adds nothing where nothing is missing.
    let text = format!("running 1 test\nstarting test x ... ok\ntest b ... ok\n{}", result(1, 0, 0));
    assert_eq!(names(&parsed(&text).unwrap()), [("b", Status::Passed)]);
}

#[test]
fn binaries_are_named_if_both_streams_are_one() {
    let text = format!(
        "     Running unittests src/lib.rs (target/debug/deps/my-crate-3110576fc3c3c96d)\n\nrunning 1 test\ntest a ... ok\n{}   Doc-tests other\n\nrunning 1 test\ntest src/lib.rs - f (line 3) ... ok\n{}",
        result(1, 0, 0),
        result(1, 0, 0)
    );
    let tests = parsed(&text).unwrap().tests.unwrap();
    assert_eq!(tests.cases.iter().map(|case| case.suite.as_str()).collect::<Vec<_>>(), ["my-crate", "other"]);
}

#[test]
fn benches_times_and_colours_are_read() {
    let text = "running 3 tests\ntest b ... bench:       1,234.5 ns/iter (+/- 56)\ntest a ... \u{1b}[32mok\u{1b}[m <0.001s>\ntest long has been running for over 60 seconds\ntest long ... ok\n\ntest result: \u{1b}[32mok\u{1b}[m. 2 passed; 0 failed; 0 ignored; 1 measured; 0 filtered out; finished in 0.06s\n";
    assert_eq!(parsed(text).unwrap().tests.unwrap().passed, 3);
}

#[derive(Debug, Clone)]
struct Made {
    outcomes: Vec<usize>,
}

impl Made {
    fn count(&self, outcome: usize) -> u64 {
        self.outcomes.iter().filter(|known| **known == outcome).count() as u64
    }

    /// With a line of a test's own output between all lines.
    fn text(&self, number: usize) -> String {
        let words = ["ok", "FAILED", "ignored, why"];
        let line = |(at, outcome): (usize, &usize)| format!("test s{number}::t{at} ... {}\nhello\n", words[*outcome]);
        let lines: String = self.outcomes.iter().enumerate().map(line).collect();
        let failures = if self.count(1) > 0 { "\nfailures:\n\n" } else { "" };
        let result = result(self.count(0), self.count(1), self.count(2));
        format!("\nrunning {} tests\n{lines}{failures}{result}", self.outcomes.len())
    }
}

fn made() -> impl Strategy<Value = Vec<Made>> {
    let section = proptest::collection::vec(0_usize..3, 0..6).prop_map(|outcomes| Made { outcomes });
    proptest::collection::vec(section, 1..5)
}

proptest! {
    #[test]
    fn sections_in_any_order_give_the_sum_of_their_tests(sections in made().prop_shuffle()) {
        let text: String = sections.iter().enumerate().map(|(number, section)| section.text(number)).collect();
        let tests = parsed(&text).unwrap().tests.unwrap();
        let sum = |outcome| sections.iter().map(|section| section.count(outcome)).sum::<u64>();
        prop_assert_eq!((tests.passed, tests.failed, tests.skipped), (sum(0), sum(1), sum(2)));
        prop_assert_eq!(tests.total, tests.cases.len() as u64);
    }

    #[test]
    fn a_line_more_or_less_never_changes_how_many_pass(sections in made(), at in any::<prop::sample::Index>(), is_added: bool) {
        let text: String = sections.iter().enumerate().map(|(number, section)| section.text(number)).collect();
        let mut lines: Vec<&str> = text.lines().collect();
        let at = at.index(lines.len());
        if is_added {
            lines.insert(at, "test forged ... ok");
        } else {
            lines.remove(at);
        }
        if let Ok(parsed) = parsed(&lines.join("\n")) {
            let passed: u64 = sections.iter().map(|section| section.count(0)).sum();
            // A section without its first line and its last is none.
            prop_assert!(parsed.tests.unwrap().passed <= passed);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let ended = Ended { exit: Exit::Code(0), output: "" };
        let _ = super::super::read(Format::CargoTest, &bytes, &place(), ended);
    }

    #[test]
    fn pieces_of_such_output_are_read_or_refused(pieces in proptest::collection::vec(prop::sample::select(vec![
        "running 1 test\n", "running 18446744073709551615 tests\n", "test a ... ok\n", "test a ... ", " ... ", "test ", "ok\n", "FAILED\n",
        "failures:\n", "---- a stdout ----\n", "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\n",
        "test result: ", "Running (", "Doc-tests é\n", "\u{1b}[", "(line 4)", "\n", "é", "test x (line ) ... FAILED\n",
    ]), 0..12)) {
        if let Ok(parsed) = parsed(&pieces.concat()) {
            let tests = parsed.tests.unwrap();
            prop_assert_eq!(tests.total, tests.passed + tests.failed + tests.skipped);
        }
    }
}
