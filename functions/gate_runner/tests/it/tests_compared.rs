//! Tests that ran at the base must still run. The runner of these workspaces makes a test of each file in `cases`, and of
//! each word of `table.csv`.

use nofx_gates::evidence::Verdict;

use crate::sample::{Lab, Tree, approved, change, doubts, passed, shell_gate, weakenings};

/// Writes a JUnit report: a case of each file, which says how the test ends.
const RUNNER: &str = r#"
printf '<testsuite name="cases">' > "$NOFX_REPORTS/junit.xml"
for file in cases/*.txt; do
    how=$(cat "$file")
    [ "$how" = "by mode" ] && how=$(cat src/mode.txt)
    case $how in skip) inside='<skipped/>' ;; fail) inside='<failure message="no"/>' ;; *) inside='' ;; esac
    printf '<testcase classname="cases" name="%s">%s</testcase>' "$(basename "$file" .txt)" "$inside" >> "$NOFX_REPORTS/junit.xml"
done
for name in $(cat table.csv); do
    printf '<testcase classname="table" name="%s"></testcase>' "$name" >> "$NOFX_REPORTS/junit.xml"
done
printf '</testsuite>' >> "$NOFX_REPORTS/junit.xml"
"#;

fn project() -> Tree {
    let reports = "reports = [{ format = \"junit\", path = \"$NOFX_REPORTS/junit.xml\" }]";
    let definition = format!("tests = [\"cases/**\"]\n{}", shell_gate("unit", RUNNER, reports));
    Tree::defined(&definition)
        .with("cases/adds.txt", "pass")
        .with("cases/divides.txt", "by mode")
        .with("src/mode.txt", "pass")
        .with("table.csv", "one two")
}

#[tokio::test]
async fn more_tests_and_the_same_tests_pass() {
    let lab = Lab::new();
    for head in [project(), project().with("cases/more.txt", "pass"), project().with("src/a.txt", "a")] {
        assert_eq!(lab.verdict(&change("unit", &project(), &head)).await, passed("tests_passed"));
    }
}

#[tokio::test]
async fn a_test_that_the_change_deletes_asks() {
    let lab = Lab::new();
    let request = change("unit", &project(), &project().without("cases/adds.txt"));
    let judged = lab.judge(&request).await;
    assert_eq!((judged.evidence.verdict, judged.evidence.reason.code.as_str()), (Verdict::Blocked, "checks_weakened"));
    let found = weakenings(&judged.evidence);
    assert!(found.iter().any(|(kind, _)| *kind == "test_deleted"), "{found:?}");
    assert!(judged.evidence.reason.message.contains("adds"), "{}", judged.evidence.reason.message);
    assert_eq!(lab.verdict(&approved(&request, &judged)).await, passed("tests_passed"));
}

#[tokio::test]
async fn a_row_that_the_change_deletes_from_the_table_of_a_test_asks() {
    let judged = Lab::new().judge(&change("unit", &project(), &project().with("table.csv", "one"))).await;
    assert_eq!(judged.evidence.verdict, Verdict::Blocked, "{}", judged.evidence.reason.message);
    assert!(judged.evidence.reason.message.contains("two"), "{}", judged.evidence.reason.message);
}

#[tokio::test]
async fn a_test_that_skips_itself_for_a_reason_outside_of_the_tests_asks() {
    let lab = Lab::new();
    let request = change("unit", &project(), &project().with("src/mode.txt", "skip"));
    let judged = lab.judge(&request).await;
    assert_eq!(judged.evidence.verdict, Verdict::Blocked, "{}", judged.evidence.reason.message);
    assert_eq!(weakenings(&judged.evidence), [("test_skipped", "cases")]);
    assert!(judged.evidence.timings_ms.contains_key("base_tests"));
    let evidence = lab.evidence(&approved(&request, &judged)).await;
    assert_eq!((evidence.verdict, evidence.tests.unwrap().skipped), (Verdict::Passed, 1));
    assert_eq!(evidence.approvals.len(), 1);
}

#[tokio::test]
async fn a_test_that_was_skipped_at_the_base_may_stay_so() {
    let base = project().with("src/mode.txt", "skip");
    let head = base.clone().with("src/a.txt", "a");
    assert_eq!(Lab::new().verdict(&change("unit", &base, &head)).await, passed("tests_passed"));
}

#[tokio::test]
async fn a_test_that_a_changed_test_file_skips_asks() {
    let judged = Lab::new().judge(&change("unit", &project(), &project().with("cases/adds.txt", "skip"))).await;
    assert_eq!(judged.evidence.verdict, Verdict::Blocked);
    assert!(judged.evidence.reason.message.contains("adds"), "{}", judged.evidence.reason.message);
}

#[tokio::test]
async fn failing_tests_fail_without_a_question() {
    let judged = Lab::new().judge(&change("unit", &project(), &project().with("src/mode.txt", "fail"))).await;
    assert_eq!((judged.evidence.verdict, judged.question), (Verdict::Failed, None));
}

#[tokio::test]
async fn a_base_whose_tests_write_no_report_is_a_doubt() {
    let base = project().with("cases/more.txt", "pass").without("cases/adds.txt").without("cases/divides.txt");
    // The base's report is cut off: the name of its test is no XML.
    let base = base.with("cases/<.txt", "pass");
    let head = base.clone().without("cases/<.txt").with("cases/new.txt", "pass");
    let judged = Lab::new().judge(&change("unit", &base, &head)).await;
    let evidence = &judged.evidence;
    assert!(evidence.verdict == Verdict::Blocked || doubts(evidence).contains(&"base_tests_unknown"), "{evidence:?}");
}
