//! Answers of runners to the jobs of gates without a command.

use std::sync::Mutex;

use serde_json::json;
use shared::domain::policy::GatePolicy;

use super::*;
use crate::dependencies::Ecosystem as Manager;
use crate::evidence::{GivenBy, Verdict};
use crate::judge::tests::packed;
use crate::judge::{Archive, BaseInput, Judged, Request, RunnerLost, Settings, judge};
use crate::run::{Bundle, CommandRun, Found, Job, Output, ReportFile, Stopped};

/// Answers each job with what the function says, and keeps the jobs.
struct Scripted<F> {
    answer: F,
    jobs: Mutex<Vec<Job>>,
}

impl<F: Fn(&Job) -> Bundle + Send + Sync> Runner for Scripted<F> {
    async fn run(&self, _: &Archive, job: Job) -> Result<Bundle, RunnerLost> {
        let bundle = (self.answer)(&job);
        self.jobs.lock().unwrap().push(job);
        Ok(bundle)
    }
}

fn scripted<F: Fn(&Job) -> Bundle + Send + Sync>(answer: F) -> Scripted<F> {
    Scripted { answer, jobs: Mutex::default() }
}

async fn judged<R: Runner>(gate: &str, base: &[(&str, &str)], head: &[(&str, &str)], runner: &R) -> Judged {
    let work = tempfile::tempdir().unwrap();
    let request = Request {
        gate: gate.to_owned(),
        tenant: "local".to_owned(),
        attempt: None,
        timeout: Duration::from_mins(10),
        workspace: packed(head),
        base: Some(BaseInput::Archive(packed(base))),
        base_given_by: GivenBy::Plan,
        base_origin: None,
        policy: GatePolicy::default(),
        approvals: Vec::new(),
        risky: true,
    };
    judge(&request, &Settings::new(work.path().to_owned()), runner).await
}

/// Adds a run that left this report.
fn add_run(bundle: &mut Bundle, exit: Exit, ms: u64, report: &str) {
    let at = bundle.result.runs.len();
    let entry = bundle.add(format!("runs/{at}/0"), report.as_bytes().to_vec());
    bundle.result.runs.push(CommandRun {
        variant: String::new(),
        root: "/workspace".to_owned(),
        exit,
        ms,
        output: Output::default(),
        reports: vec![ReportFile { report: 0, path: "report".to_owned(), found: Found::File { entry } }],
        sandbox: json!({ "level": "namespaces" }),
    });
}

fn code(judged: &Judged) -> (Verdict, &str) {
    (judged.evidence.verdict, judged.evidence.reason.code.as_str())
}

mod mutants {
    use super::*;

    const DEFINITION: &str = "presets = false\n[gates.unit]\ncommand = [\"run-tests\"]\n\
        reports = [{ format = \"lcov\", path = \"$NOFX_REPORTS/lcov.info\" }]\n\
        [gates.mutants]\nkind = \"mutants\"\nmutants = { limit = 4, tests = \"unit\" }\n";
    const CODE: &str = "export function f(a, b) {\n  const c = a + b;\n  const d = a * b;\n  return c < d;\n}\n";
    const LCOV: &str = "TN:\nSF:a.js\nDA:1,1\nDA:2,1\nDA:3,1\nDA:4,1\nend_of_record\n";

    async fn tried(
        answers: impl Fn(usize, &Job) -> Option<(Exit, u64)> + Send + Sync,
        stopped: Option<Stopped>,
    ) -> Judged {
        let runner = scripted(|job| {
            let mut bundle = Bundle::default();
            if job.variants.len() == 1 && job.variants[0].edits.is_empty() {
                add_run(&mut bundle, Exit::Code(0), 1_000, LCOV);
                return bundle;
            }
            for at in 0..job.variants.len() {
                let Some((exit, ms)) = answers(at, job) else { break };
                add_run(&mut bundle, exit, ms, LCOV);
            }
            bundle.result.stopped.clone_from(&stopped);
            bundle
        });
        judged("mutants", &[("nofx.toml", DEFINITION)], &[("nofx.toml", DEFINITION), ("a.js", CODE)], &runner).await
    }

    fn is_cut(judged: &Judged) -> bool {
        judged.evidence.not_proved.contains(&DoubtCode::MutantsCut.into())
    }

    #[tokio::test]
    async fn every_mutant_that_is_noticed_passes() {
        let all = tried(|_, _| Some((Exit::Code(1), 900)), None).await;
        assert_eq!((code(&all), is_cut(&all)), ((Verdict::Passed, "mutants_killed"), false));
        let looped =
            |at, job: &Job| Some(if at == 0 { (Exit::Code(1), 900) } else { (Exit::TimedOut, job.command.timeout_ms) });
        let all = tried(looped, None).await;
        assert_eq!((code(&all), is_cut(&all)), ((Verdict::Passed, "mutants_killed"), false));
    }

    #[tokio::test]
    async fn a_mutant_that_does_not_build_was_not_noticed() {
        let cargo = DEFINITION.replace(" }]\n", " }, { format = \"cargo_test\", path = \"stdout\" }]\n");
        let line =
            |counts: &str| format!("test result: {counts}; 0 ignored; 0 measured; 0 filtered out; finished in 0.0s\n");
        let passed = format!("running 1 test\ntest a ... ok\n{}", line("ok. 1 passed; 0 failed"));
        let noticed = format!("running 1 test\ntest a ... FAILED\n{}", line("FAILED. 0 passed; 1 failed"));
        // A binary that a mutant aborts has no result, and did notice it.
        for (printed, expected) in
            [("", "no_mutant_built"), (noticed.as_str(), "mutants_killed"), ("running 1 test\n", "mutants_killed")]
        {
            let runner = scripted(|job| {
                let mut bundle = Bundle::default();
                let is_first = job.variants.len() == 1 && job.variants[0].edits.is_empty();
                let (exit, printed) = if is_first { (0, passed.as_str()) } else { (101, printed) };
                for at in 0..job.variants.len() {
                    add_run(&mut bundle, Exit::Code(exit), 900, LCOV);
                    let entry = bundle.add(format!("runs/{at}/stdout"), printed.as_bytes().to_vec());
                    let report = ReportFile { report: 1, path: "stdout".to_owned(), found: Found::File { entry } };
                    bundle.result.runs[at].reports.push(report);
                }
                bundle
            });
            let head = [("nofx.toml", cargo.as_str()), ("a.js", CODE)];
            let judged = judged("mutants", &head[..1], &head, &runner).await;
            assert_eq!(judged.evidence.reason.code, expected, "{:?}", judged.evidence.reason);
        }
    }

    #[tokio::test]
    async fn a_mutant_without_its_time_was_not_noticed() {
        let cut = |at, _: &Job| Some(if at == 0 { (Exit::Code(1), 900) } else { (Exit::TimedOut, 3) });
        let some = tried(cut, None).await;
        assert_eq!((code(&some), is_cut(&some)), ((Verdict::Passed, "mutants_killed"), true));
        assert!(some.evidence.reason.message.contains("1 of 1"), "{:?}", some.evidence.reason);
        let none = tried(|_, _| Some((Exit::TimedOut, 3)), None).await;
        assert_eq!(code(&none), (Verdict::Failed, "timed_out"));
    }

    #[tokio::test]
    async fn a_runner_that_stops_or_leaves_mutants_out_gives_no_verdict() {
        let one = |at, _: &Job| (at == 0).then_some((Exit::Code(1), 900));
        let stopped = |retryable| Some(Stopped { code: "disk_full".into(), message: "full".into(), retryable });
        for (stopped, expected) in [(stopped(true), "disk_full"), (stopped(false), "disk_full"), (None, "runner_lost")]
        {
            let lost = stopped.as_ref().is_none_or(|stopped| stopped.retryable);
            let some = tried(one, stopped).await;
            assert_eq!((code(&some), some.lost.is_some()), ((Verdict::Failed, expected), lost));
        }
    }
}

mod audit {
    use super::*;

    const DEFINITION: &str = "presets = false\n[gates.audit]\nkind = \"audit\"\n";
    const NPM: &str = r#"{"auditReportVersion": 2, "vulnerabilities": {}, "metadata": {"dependencies": {"total": 1}, "vulnerabilities": {"total": 0}}}"#;
    const PIP: &str = r#"{"dependencies": [{"name": "a", "version": "1", "vulns": []}], "fixes": []}"#;
    const BAD: &str = r#"{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": [], "aliases": [], "description": "d"}]}], "fixes": []}"#;

    async fn audited(pip: (i32, &str)) -> (Judged, Vec<Option<Manager>>) {
        let runner = scripted(|job| {
            let mut bundle = Bundle::default();
            let (exit, report) = if job.ecosystem == Some(Manager::Npm) { (0, NPM) } else { pip };
            bundle.result.toolchain.insert(format!("{:?}", job.ecosystem), "1".to_owned());
            add_run(&mut bundle, Exit::Code(exit), 1, report);
            bundle
        });
        let lock = "{\"lockfileVersion\": 3, \"packages\": {\"\": {}}}";
        let base = [("nofx.toml", DEFINITION), ("requirements.lock", "a==1\n")];
        let head = [base[0], base[1], ("package-lock.json", lock)];
        let judged = judged("audit", &base, &head, &runner).await;
        let managers = runner.jobs.into_inner().unwrap().into_iter().map(|job| job.ecosystem).collect();
        (judged, managers)
    }

    #[tokio::test]
    async fn a_lockfile_that_the_change_adds_does_not_hide_another_one() {
        let (bad, _) = audited((1, BAD)).await;
        assert_eq!(code(&bad), (Verdict::Failed, "findings_found"));
    }

    #[tokio::test]
    async fn every_package_manager_with_a_lockfile_is_asked() {
        let (good, asked) = audited((0, PIP)).await;
        assert_eq!(code(&good), (Verdict::Passed, "report_clean"), "{:?}", good.evidence.reason);
        assert_eq!(asked, [Some(Manager::Npm), Some(Manager::Pip)]);
        let formats: Vec<&str> = good.evidence.reports.iter().map(|report| report.format.as_str()).collect();
        assert_eq!(formats, ["npm_audit", "pip_audit"]);
        assert_eq!(good.evidence.toolchain.len(), 2);
    }
}
