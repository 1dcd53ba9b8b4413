//! Answers of a runner that no honest runner gives.

use std::fs;
use std::time::Duration;

use serde_json::json;
use shared::domain::policy::GatePolicy;

use super::*;
use crate::archive;
use crate::evidence::GivenBy;
use crate::run::{Bundle, CommandRun, Exit, Found, Job, Output, ReportFile};
use crate::snapshot::Snapshot;

/// Gives the same answer to every job.
struct Forged(Bundle);

impl Runner for Forged {
    async fn run(&self, _: &Archive, _: Job) -> Result<Bundle, RunnerLost> {
        Ok(self.0.clone())
    }
}

const DEFINITION: &str = "[gates.unit]\ncommand = [\"run-tests\"]\n\
                          reports = [{ format = \"junit\", path = \"$NOFX_REPORTS/junit.xml\" }]\n";

/// A run that succeeded, printed this, and wrote these reports.
fn answer(exit: i32, printed: &str, reports: &[&str]) -> Bundle {
    let mut bundle = Bundle::default();
    let file = |(report, text): (usize, &&str)| ReportFile {
        report,
        path: "junit.xml".to_owned(),
        found: Found::File { entry: bundle.add(format!("runs/0/{report}"), text.as_bytes().to_vec()) },
    };
    let reports = reports.iter().enumerate().map(file).collect();
    bundle.result.runs.push(CommandRun {
        variant: String::new(),
        root: "/workspace".to_owned(),
        exit: Exit::Code(exit),
        ms: 1,
        output: Output { tail: printed.to_owned(), ..Output::default() },
        reports,
        sandbox: json!({ "level": "namespaces" }),
    });
    bundle
}

/// A workspace with these files: path and text.
pub fn packed(files: &[(&str, &str)]) -> Archive {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        fs::write(folder.path().join(path), text).unwrap();
    }
    let snapshot = Snapshot::take(folder.path()).unwrap();
    Archive::new(archive::pack(&archive::sources(&snapshot), Limits::default()).unwrap())
}

async fn judged(definition: &str, bundle: Bundle) -> Judged {
    let work = tempfile::tempdir().unwrap();
    let request = Request {
        gate: "unit".to_owned(),
        tenant: "local".to_owned(),
        attempt: None,
        timeout: Duration::from_mins(1),
        workspace: packed(&[("nofx.toml", definition)]),
        base: None,
        base_given_by: GivenBy::None,
        base_origin: None,
        policy: GatePolicy::default(),
        approvals: Vec::new(),
        risky: false,
    };
    judge(&request, &Settings::new(work.path().to_owned()), &Forged(bundle)).await
}

#[tokio::test]
async fn a_report_that_the_runner_leaves_out_is_missing() {
    let one = "<testsuite tests=\"1\"><testcase name=\"a\"/></testsuite>";
    let passed = judged(DEFINITION, answer(0, "", &[one])).await;
    assert_eq!((passed.evidence.verdict, passed.evidence.reason.code.as_str()), (Verdict::Passed, "tests_passed"));
    let failed = judged(DEFINITION, answer(0, "", &[])).await;
    assert_eq!((failed.evidence.verdict, failed.evidence.reason.code.as_str()), (Verdict::Failed, "report_missing"));
}

#[tokio::test]
async fn a_passed_report_of_tests_is_no_proof_against_their_own_process() {
    let one = "<testsuite tests=\"1\"><testcase name=\"a\"/></testsuite>";
    let passed = judged(DEFINITION, answer(0, "", &[one])).await;
    assert!(passed.evidence.not_proved.iter().any(|doubt| doubt.code == "report_forgeable"));
}

#[tokio::test]
async fn control_characters_of_the_command_do_not_reach_the_reason() {
    let definition = "[gates.unit]\ncommand = [\"run-tests\"]\n";
    let judged = judged(definition, answer(1, "error: a\0b\x1b[2J\u{202e}c\r\n\terror: d", &[])).await;
    let message = &judged.evidence.reason.message;
    assert!(message.contains("a\\u{0}b\\u{1b}[2J\\u{202e}c") && message.contains("error: d"), "{message:?}");
    assert!(!message.chars().any(|letter| letter.is_control() && !matches!(letter, '\n' | '\t')), "{message:?}");
}

const WARNS: &str = "[gates.unit]\ncommand = [\"check\"]\nseverity = \"warning\"\nreports = [\
                     { format = \"eslint\", path = \"$NOFX_REPORTS/lint.json\" }, \
                     { format = \"junit\", path = \"$NOFX_REPORTS/junit.xml\" }]\n";
const LINT: &str = r#"[{"filePath": "/workspace/a.ts", "messages": [{"ruleId": "no-var", "severity": 2, "message": "m", "line": 1, "column": 1}], "errorCount": 1, "fatalErrorCount": 0, "warningCount": 0, "fixableErrorCount": 0, "fixableWarningCount": 0}]"#;

#[tokio::test]
async fn a_gate_that_only_warns_still_fails_by_its_other_reports() {
    let passed_tests = "<testsuite tests=\"1\"><testcase name=\"a\"/></testsuite>";
    let failed_tests = "<testsuite tests=\"1\"><testcase name=\"a\"><failure/></testcase></testsuite>";
    let warned = judged(WARNS, answer(1, "", &[LINT, passed_tests])).await;
    let reason = &warned.evidence.reason;
    assert_eq!((warned.evidence.verdict, reason.code.as_str()), (Verdict::Passed, "warnings_only"), "{reason:?}");
    for (reports, code) in [
        (&[LINT, failed_tests][..], "tests_failed"),
        (&[LINT, "no report"], "report_unparsable"),
        (&[LINT], "report_missing"),
    ] {
        let failed = judged(WARNS, answer(1, "", reports)).await;
        assert_eq!((failed.evidence.verdict, failed.evidence.reason.code.as_str()), (Verdict::Failed, code));
    }
}

#[tokio::test]
async fn a_run_without_the_isolation_that_the_gate_demands_is_no_pass() {
    let definition = "[gates.unit]\ncommand = [\"check\"]\nsandbox = \"landlock\"\n";
    for (report, passes) in [
        (json!({ "level": "namespaces" }), true),
        (json!({ "level": "landlock" }), true),
        (json!({ "level": "limits" }), false),
        (json!({ "level": "other" }), false),
        (serde_json::Value::Null, false),
    ] {
        let mut bundle = answer(0, "", &[]);
        bundle.result.runs[0].sandbox = report.clone();
        let evidence = judged(definition, bundle).await.evidence;
        let expected =
            if passes { (Verdict::Passed, "command_succeeded") } else { (Verdict::Failed, "sandbox_too_weak") };
        assert_eq!((evidence.verdict, evidence.reason.code.as_str()), expected, "{report}");
    }
    let mut bundle = answer(0, "", &[]);
    bundle.result.runs[0].sandbox = serde_json::Value::Null;
    let evidence = judged("[gates.unit]\ncommand = [\"check\"]\n", bundle).await.evidence;
    assert!(evidence.not_proved.contains(&DoubtCode::SandboxWeak.into()), "{:?}", evidence.not_proved);
}
