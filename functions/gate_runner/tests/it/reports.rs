//! Reports of commands: those that count are written by this run, at the path that the definition names.

use nofx_gates::evidence::{Evidence, ReportOutcome, Verdict};

use crate::sample::{Lab, Tree, doubts, failed, passed, request, shell_gate};

const JUNIT: &str = r#"reports = [{ format = "junit", path = "$NOFX_REPORTS/junit.xml" }]"#;
const PASSING: &str = r#"<testsuite name="s" tests="1"><testcase classname="s" name="adds"/></testsuite>"#;
const FAILING: &str = r#"<testsuite name="s" tests="1" failures="1"><testcase classname="s" name="adds"><failure message="3 is not 4"/></testcase></testsuite>"#;
const SKIPPED: &str = r#"<testsuite name="s" tests="1" skipped="1"><testcase classname="s" name="adds"><skipped/></testcase></testsuite>"#;
const EMPTY: &str = r#"<testsuite name="s" tests="0"></testsuite>"#;

fn junit(line: &str, report: &str) -> Tree {
    Tree::defined(&shell_gate("unit", line, JUNIT)).with("sample.xml", report)
}

async fn judged(tree: &Tree) -> Evidence {
    Lab::new().evidence(&request("unit", tree)).await
}

async fn code_of(tree: &Tree) -> (Verdict, String) {
    Lab::new().verdict(&request("unit", tree)).await
}

const COPY: &str = "cp sample.xml $NOFX_REPORTS/junit.xml";

#[tokio::test]
async fn tests_that_passed_pass_and_are_counted() {
    let evidence = judged(&junit(COPY, PASSING)).await;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Passed, "tests_passed"));
    let tests = evidence.tests.unwrap();
    assert_eq!((tests.total, tests.passed), (1, 1));
    let report = &evidence.reports[0];
    assert_eq!((report.outcome, report.path.as_str()), (ReportOutcome::Read, "junit.xml"));
    assert!(report.sha256.is_some());
}

#[tokio::test]
async fn a_failed_test_fails_whatever_the_exit_code_says() {
    let evidence = judged(&junit(COPY, FAILING)).await;
    assert_eq!(evidence.verdict, Verdict::Failed);
    assert_eq!(evidence.tests.unwrap().failures.listed[0].message, "3 is not 4");
    assert_eq!(code_of(&junit(&format!("{COPY}; exit 1"), FAILING)).await, failed("tests_failed"));
}

#[tokio::test]
async fn a_clean_report_of_a_command_that_failed_fails() {
    assert_eq!(code_of(&junit(&format!("{COPY}; exit 1"), PASSING)).await, failed("report_disagrees"));
}

#[tokio::test]
async fn a_run_without_a_test_fails() {
    assert_eq!(code_of(&junit(COPY, EMPTY)).await, failed("no_tests"));
    assert_eq!(code_of(&junit(COPY, SKIPPED)).await, failed("all_tests_skipped"));
}

#[tokio::test]
async fn a_report_that_is_missing_fails() {
    let evidence = judged(&junit("true", PASSING)).await;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Failed, "report_missing"));
    assert_eq!(evidence.reports[0].outcome, ReportOutcome::Missing);
}

#[tokio::test]
async fn a_report_that_is_empty_cut_or_of_another_format_fails() {
    let cut = &PASSING[..PASSING.len() / 2];
    assert_eq!(code_of(&junit(COPY, "")).await, failed("report_empty"));
    for text in ["{}", "<html></html>", cut] {
        assert_eq!(code_of(&junit(COPY, text)).await, failed("report_unparsable"), "{text:?}");
    }
}

#[tokio::test]
async fn a_report_that_is_a_link_fails() {
    assert_eq!(
        code_of(&junit("ln -s $PWD/sample.xml $NOFX_REPORTS/junit.xml", PASSING)).await,
        failed("report_unparsable")
    );
    assert_eq!(code_of(&junit("ln sample.xml $NOFX_REPORTS/junit.xml", PASSING)).await.0, Verdict::Failed);
}

#[tokio::test]
async fn a_report_from_before_the_run_is_stale() {
    let line = format!("{COPY} && touch -d 2001-01-01 $NOFX_REPORTS/junit.xml");
    assert_eq!(code_of(&junit(&line, PASSING)).await, failed("report_stale"));
}

#[tokio::test]
async fn a_report_that_came_with_the_workspace_is_removed_before_the_run() {
    let more = r#"reports = [{ format = "junit", path = "out/junit.xml" }]"#;
    let tree = Tree::defined(&shell_gate("unit", "true", more)).with("out/junit.xml", PASSING);
    assert_eq!(code_of(&tree).await, failed("report_missing"));
    let writes = Tree::defined(&shell_gate("unit", "cp sample.xml out/junit.xml", more))
        .with("sample.xml", PASSING)
        .with("out/junit.xml", FAILING);
    assert_eq!(code_of(&writes).await, passed("tests_passed"));
}

const FOUND: &str = "echo 'src/a.ts(2,3): error TS2322: Type string is not assignable.'; exit 2";
const STDOUT: &str = "reports = [{ format = \"tsc\", path = \"stdout\" }]";

#[tokio::test]
async fn findings_on_standard_output_are_listed_with_their_place() {
    let tree = Tree::defined(&shell_gate("unit", FOUND, STDOUT)).with("src/a.ts", "a\nb\n");
    let evidence = judged(&tree).await;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Failed, "findings_found"));
    let finding = &evidence.findings.list.listed[0];
    assert_eq!((finding.file.as_str(), finding.line, finding.rule.as_deref()), ("src/a.ts", Some(2), Some("TS2322")));
}

#[tokio::test]
async fn a_gate_that_only_warns_passes_with_its_findings() {
    let more = format!("{STDOUT}\nseverity = \"warning\"");
    let tree = Tree::defined(&shell_gate("unit", FOUND, &more)).with("src/a.ts", "a\nb\n");
    let evidence = judged(&tree).await;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Passed, "warnings_only"));
    assert_eq!(evidence.findings.list.total, 1);
    assert!(doubts(&evidence).contains(&"only_warns"));
}

#[tokio::test]
async fn a_gate_that_only_warns_fails_if_it_could_not_do_its_work() {
    let more = format!("{STDOUT}\nseverity = \"warning\"");
    for line in ["exit 2", "kill -9 $$"] {
        let tree = Tree::defined(&shell_gate("unit", line, &more)).with("src/a.ts", "a\n");
        assert_eq!(code_of(&tree).await.0, Verdict::Failed, "{line}");
    }
    let more = format!("{JUNIT}\nseverity = \"warning\"");
    assert_eq!(code_of(&Tree::defined(&shell_gate("unit", "true", &more))).await, failed("report_missing"));
}

#[tokio::test]
async fn findings_of_sarif_are_read() {
    let sarif = r#"{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "scan"}}, "results": [{"ruleId": "R1", "level": "error",
        "message": {"text": "bad"}, "locations": [{"physicalLocation": {"artifactLocation": {"uri": "src/a.js"}, "region": {"startLine": 4}}}]}]}]}"#;
    let more = r#"reports = [{ format = "sarif", path = "$NOFX_REPORTS/out.sarif" }]"#;
    let tree = Tree::defined(&shell_gate("sast", "cp found.sarif $NOFX_REPORTS/out.sarif", more))
        .with("found.sarif", sarif)
        .with("src/a.js", "f();\n");
    let evidence = Lab::new().evidence(&request("sast", &tree)).await;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Failed, "findings_found"));
    assert_eq!(evidence.findings.list.listed[0].line, Some(4));
}
