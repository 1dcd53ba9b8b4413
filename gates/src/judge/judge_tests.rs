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

async fn judged(definition: &str, bundle: Bundle) -> Judged {
    let (work, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(folder.path().join("nofx.toml"), definition).unwrap();
    let snapshot = Snapshot::take(folder.path()).unwrap();
    let packed = archive::pack(&archive::sources(&snapshot), Limits::default()).unwrap();
    let request = Request {
        gate: "unit".to_owned(),
        tenant: "local".to_owned(),
        attempt: None,
        timeout: Duration::from_mins(1),
        workspace: Archive::new(packed),
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
