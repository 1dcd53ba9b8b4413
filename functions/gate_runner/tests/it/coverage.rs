//! Changed lines must run in tests.

use std::fmt::Write;

use nofx_gates::evidence::{Evidence, Verdict};
use nofx_gates::judge::{Archive, BaseInput, Request};
use shared::domain::policy::{GatePolicy, TrustedBase};

use crate::sample::{Lab, Tree, change, doubts, failed, passed, request, shell_gate};

const REPORT: &str = r#"reports = [{ format = "lcov", path = "$NOFX_REPORTS/lcov.info" }]"#;
const COPY: &str = "cp lcov.txt $NOFX_REPORTS/lcov.info";

/// A workspace with a source of as many lines as these hits, and tests that report them.
fn project(hits: &[u32]) -> Tree {
    measured(COPY, hits)
}

fn measured(line: &str, hits: &[u32]) -> Tree {
    let (mut lines, mut source) = (String::new(), String::new());
    for (at, hits) in hits.iter().enumerate() {
        writeln!(lines, "DA:{},{hits}", at + 1).unwrap();
        writeln!(source, "f({at});").unwrap();
    }
    Tree::defined(&shell_gate("unit", line, REPORT))
        .with("lcov.txt", &format!("SF:src/a.js\n{lines}end_of_record\n"))
        .with("src/a.js", &source)
}

async fn evidence(request: &Request) -> Evidence {
    Lab::new().evidence(request).await
}

#[tokio::test]
async fn covered_lines_pass() {
    let evidence = evidence(&request("unit", &project(&[1, 1]))).await;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Passed, "threshold_met"));
    assert_eq!(evidence.coverage.as_ref().unwrap()["ratio"], 1.0);
    assert!(evidence.reports[0].sha256.is_some());
    assert!(doubts(&evidence).contains(&"report_forgeable"));
}

#[tokio::test]
async fn passing_tests_with_uncovered_lines_fail() {
    let evidence = evidence(&request("unit", &project(&[1, 0]))).await;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Failed, "below_threshold"));
    assert_eq!(evidence.command.unwrap().exit_code, Some(0));
    assert!(evidence.reason.message.contains("src/a.js"), "{}", evidence.reason.message);
    assert_eq!(evidence.coverage.unwrap()["files"][0]["uncovered_lines"], serde_json::json!([2]));
}

#[tokio::test]
async fn failing_tests_fail_even_when_every_line_is_covered() {
    let tree = measured(&format!("{COPY}; exit 1"), &[1]);
    assert_eq!(Lab::new().verdict(&request("unit", &tree)).await, failed("command_failed"));
}

#[tokio::test]
async fn with_a_base_only_changed_lines_are_judged() {
    let base = project(&[0]);
    let head = project(&[0, 1]);
    let lab = Lab::new();
    assert_eq!(lab.verdict(&request("unit", &head)).await, failed("below_threshold"));
    let coverage = lab.evidence(&change("unit", &base, &head)).await.coverage.unwrap();
    assert_eq!((&coverage["covered"], &coverage["uncovered"]), (&1.into(), &0.into()));
    let diff = "--- a/src/a.js\n+++ b/src/a.js\n@@ -1 +1,2 @@\n f(0);\n+f(1);\n";
    let diff = BaseInput::Diff(Archive::new(diff.as_bytes().to_vec()));
    let request = Request { base: Some(diff), ..change("unit", &base, &head) };
    assert_eq!(lab.verdict(&request).await, passed("threshold_met"));
}

#[tokio::test]
async fn a_diff_that_does_not_fit_is_no_base_and_an_empty_one_says_so() {
    let head = project(&[0, 1]);
    let request = |text: &str| {
        let diff = BaseInput::Diff(Archive::new(text.as_bytes().to_vec()));
        Request { base: Some(diff), ..change("unit", &head, &head) }
    };
    let lab = Lab::new();
    for text in ["not a diff", "--- a/src/gone.js\n+++ b/src/gone.js\n@@ -1 +1 @@\n-a\n+b\n"] {
        let (verdict, code) = lab.verdict(&request(text)).await;
        assert_eq!((verdict, code.as_str()), (Verdict::Failed, "diff_mismatch"), "{text:?}");
    }
    assert_eq!(lab.verdict(&request("")).await, passed("empty_diff"), "the base is the workspace itself");
}

#[tokio::test]
async fn a_change_without_code_says_so() {
    let base = project(&[0]);
    let head = base.clone().with("README.md", "Hello.\n");
    let policy = GatePolicy { trusted_base: TrustedBase::Listed(vec![base.packed().sha256]), ..GatePolicy::default() };
    let evidence = evidence(&Request { policy, ..change("unit", &base, &head) }).await;
    assert_eq!(evidence.verdict, Verdict::Passed, "{}", evidence.reason.message);
    assert_eq!(evidence.coverage.unwrap()["ratio"], serde_json::Value::Null);
}

#[tokio::test]
async fn tests_that_rewrite_their_sources_do_not_hide_changed_lines() {
    let tree = measured(&format!("{COPY} && echo '// nothing' > src/a.js"), &[0, 0]);
    assert_eq!(Lab::new().verdict(&request("unit", &tree)).await, failed("below_threshold"));
}

#[tokio::test]
async fn a_report_that_leaves_a_changed_file_out_does_not_cover_it() {
    let tree = project(&[1]).with("src/b.js", "g();\n");
    let evidence = evidence(&request("unit", &tree)).await;
    assert_eq!(evidence.verdict, Verdict::Failed);
    assert_eq!(evidence.coverage.unwrap()["unmeasured"], 1);
}

#[tokio::test]
async fn a_report_without_a_known_file_or_an_unparsable_one_fails() {
    let lab = Lab::new();
    let foreign = project(&[1]).with("lcov.txt", "SF:lib/z.js\nDA:1,1\nend_of_record\n");
    assert_eq!(lab.verdict(&request("unit", &foreign)).await.0, Verdict::Failed);
    for text in ["", "junk\n"] {
        let (verdict, code) = lab.verdict(&request("unit", &project(&[1]).with("lcov.txt", text))).await;
        assert_eq!(verdict, Verdict::Failed, "{code}");
    }
}

#[tokio::test]
async fn an_average_does_not_hide_a_file_below_its_floor() {
    let more = format!("{REPORT}\ncoverage = {{ threshold = 0.5, file_floor = 0.5 }}");
    let report = "SF:src/a.js\nDA:1,1\nDA:2,1\nDA:3,1\nend_of_record\nSF:src/b.js\nDA:1,0\nend_of_record\n";
    let tree = Tree::defined(&shell_gate("unit", COPY, &more))
        .with("lcov.txt", report)
        .with("src/a.js", "f();\ng();\nh();\n")
        .with("src/b.js", "i();\n");
    let evidence = evidence(&request("unit", &tree)).await;
    assert_eq!(evidence.verdict, Verdict::Failed);
    assert!(evidence.reason.message.contains("src/b.js"), "{}", evidence.reason.message);
}
