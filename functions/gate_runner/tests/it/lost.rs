//! A runner that is lost leaves evidence, and nobody is blamed.

use std::sync::Arc;

use nofx_gates::evidence::Verdict;
use nofx_gates::judge::{Archive, Judged, Runner, RunnerLost};
use nofx_gates::run::{Bundle, CommandRun, Executor, Exit, Job, Output, Stopped};

use crate::sample::{Lab, Tree, change, doubts, failed, request, shell_gate};

/// Gives the same answer to every job.
struct Scripted(Result<Bundle, RunnerLost>);

impl Runner for Scripted {
    async fn run(&self, _: &Archive, _: Job) -> Result<Bundle, RunnerLost> {
        self.0.clone()
    }
}

fn stopped(code: &str, retryable: bool) -> Scripted {
    let mut bundle = Bundle::default();
    bundle.result.stopped = Some(Stopped { code: code.into(), message: "no".into(), retryable });
    Scripted(Ok(bundle))
}

#[tokio::test]
async fn a_lost_runner_leaves_evidence_and_may_be_tried_again() {
    for (lost, code) in [
        (RunnerLost::ended("signal: 9"), "runner_lost"),
        (RunnerLost::unavailable("runner_unavailable", "throttled"), "runner_unavailable"),
    ] {
        let judged = Lab::new().judge_with(&request("check", &Tree::shell("true")), &Scripted(Err(lost))).await;
        assert_eq!(judged.lost.unwrap().code, code);
        let evidence = judged.evidence;
        assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Failed, code));
        assert!(evidence.subject.is_some() && evidence.definition.is_some());
        assert_eq!(evidence.command, None);
    }
}

#[tokio::test]
async fn a_runner_that_stopped_says_who_is_at_fault() {
    let lab = Lab::new();
    let request = request("check", &Tree::shell("true"));
    let judged = lab.judge_with(&request, &stopped("install_failed", false)).await;
    assert!(judged.lost.is_none(), "the workspace is at fault");
    assert_eq!(judged.evidence.reason.code, "install_failed");
    let judged = lab.judge_with(&request, &stopped("sandbox_failed", true)).await;
    assert_eq!(judged.lost.unwrap().code, "sandbox_failed");
    // The runner is not trusted to name codes of its own.
    let judged = lab.judge_with(&request, &stopped("all_good", true)).await;
    assert_eq!(judged.evidence.verdict, Verdict::Failed);
    assert_eq!(judged.lost.unwrap().code, "work_folder_unavailable");
}

#[tokio::test]
async fn a_bundle_without_a_run_is_no_result() {
    let judged = Lab::new().judge_with(&request("check", &Tree::shell("true")), &Scripted(Ok(Bundle::default()))).await;
    assert_eq!(judged.lost.unwrap().code, "runner_lost");
    assert_eq!(judged.evidence.verdict, Verdict::Failed);
}

/// Really runs one workspace, and gives the same answer to jobs for any other.
struct Once<'a> {
    runner: Executor,
    workspace: &'a str,
    otherwise: Result<Bundle, RunnerLost>,
}

impl Runner for Once<'_> {
    async fn run(&self, archive: &Archive, job: Job) -> Result<Bundle, RunnerLost> {
        if archive.sha256 == self.workspace {
            Ok(self.runner.execute(&job, Arc::clone(&archive.bytes)).await)
        } else {
            self.otherwise.clone()
        }
    }
}

/// Judges a change whose tests pass, with one skipped, so that the tests of the base have to run.
async fn with_base_tests(otherwise: Result<Bundle, RunnerLost>) -> Judged {
    let line = "cp report.xml $NOFX_REPORTS/junit.xml";
    let reports = r#"reports = [{ format = "junit", path = "$NOFX_REPORTS/junit.xml" }]"#;
    let report = r#"<testsuite name="s"><testcase name="a"/><testcase name="b"><skipped/></testcase></testsuite>"#;
    let base = Tree::defined(&shell_gate("unit", line, reports)).with("report.xml", report);
    let request = change("unit", &base, &base.clone().with("src/a.js", "f();\n"));
    let lab = Lab::new();
    let runner = Once { runner: Executor::new(lab.runner.clone()), workspace: &request.workspace.sha256, otherwise };
    lab.judge_with(&request, &runner).await
}

#[tokio::test]
async fn a_runner_that_is_lost_with_the_tests_of_the_base_is_no_pass() {
    let judged = with_base_tests(Err(RunnerLost::ended("signal: 9"))).await;
    assert_eq!(judged.lost.unwrap().code, "runner_lost");
    assert_eq!(judged.evidence.verdict, Verdict::Failed);
    let judged = with_base_tests(stopped("disk_full", true).0).await;
    assert_eq!(judged.lost.unwrap().code, "disk_full");
}

#[tokio::test]
async fn a_change_cannot_take_the_time_of_the_tests_of_the_base() {
    let mut bundle = Bundle::default();
    bundle.result.runs.push(CommandRun {
        variant: String::new(),
        root: "/work".into(),
        exit: Exit::TimedOut,
        ms: 1,
        output: Output::default(),
        reports: Vec::new(),
        sandbox: serde_json::Value::Null,
    });
    let judged = with_base_tests(Ok(bundle)).await;
    assert_eq!((judged.evidence.verdict, judged.evidence.reason.code), failed("timed_out"));
}

#[tokio::test]
async fn a_base_that_cannot_run_is_a_doubt() {
    let judged = with_base_tests(stopped("no_lockfile", false).0).await;
    assert_eq!((judged.evidence.verdict, judged.evidence.reason.code.as_str()), (Verdict::Passed, "tests_passed"));
    assert!(doubts(&judged.evidence).contains(&"base_tests_unknown"));
}

#[tokio::test]
async fn an_unusable_work_folder_is_nobodys_fault() {
    let mut lab = Lab::new();
    let file = lab.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    lab.runner.work_dir = file;
    let judged = lab.judge(&request("check", &Tree::shell("true"))).await;
    assert_eq!(judged.lost.unwrap().code, "work_folder_unavailable");
}

#[tokio::test]
async fn a_runner_does_not_start_for_a_gate_that_cannot_be_judged() {
    struct Never;
    impl Runner for Never {
        async fn run(&self, _: &Archive, _: Job) -> Result<Bundle, RunnerLost> {
            panic!("nothing may run")
        }
    }
    let lab = Lab::new();
    let judged = lab.judge_with(&change("check", &Tree::shell("false"), &Tree::shell("true")), &Never).await;
    assert_eq!(judged.evidence.verdict, Verdict::Blocked);
    let judged = lab.judge_with(&request("other", &Tree::shell("true")), &Never).await;
    assert_eq!((judged.evidence.verdict, judged.evidence.reason.code), failed("no_command"));
}
