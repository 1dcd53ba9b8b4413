use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shared::domain::policy::GatePolicy;

use super::*;
use crate::evidence::{Approval, Attempt, GivenBy, Verdict};
use crate::judge::tests::packed;
use crate::judge::{Archive, BaseInput, Judged, RunnerLost, Settings, judge};
use crate::run::{Bundle, CommandRun, Exit, Output};

/// Answers as a runner on a host with these properties. Its command exits with `code`.
struct Fake {
    node: &'static str,
    level: &'static str,
    code: i32,
    runs: AtomicUsize,
    left: Mutex<BTreeMap<String, Earlier>>,
}

impl Fake {
    fn new() -> Self {
        Self { node: "22.1.0", level: "namespaces", code: 0, runs: AtomicUsize::new(0), left: Mutex::default() }
    }

    /// Keeps what a gate left, after `change`.
    fn keep(&self, judged: &Judged, change: impl FnOnce(&mut Evidence)) {
        let mut evidence = judged.evidence.clone();
        change(&mut evidence);
        let sha256 = evidence.encode().unwrap().sha256;
        self.left.lock().unwrap().insert(judged.reuse_key.clone().expect("a key"), Earlier { evidence, sha256 });
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::Relaxed)
    }
}

impl Runner for Fake {
    async fn run(&self, _: &Archive, job: Job) -> Result<Bundle, RunnerLost> {
        let mut bundle = Bundle::default();
        bundle.result.toolchain = BTreeMap::from([("node".to_owned(), self.node.to_owned())]);
        self.level.clone_into(&mut bundle.result.sandbox);
        if !job.is_probe() {
            self.runs.fetch_add(1, Ordering::Relaxed);
            bundle.result.runs.push(CommandRun {
                variant: String::new(),
                root: "/workspace".into(),
                exit: Exit::Code(self.code),
                ms: 1,
                output: Output::default(),
                reports: Vec::new(),
                sandbox: json!({ "level": self.level, "network": "private_loopback" }),
            });
        }
        Ok(bundle)
    }

    async fn earlier(&self, key: &str) -> Option<Earlier> {
        self.left.lock().unwrap().get(key).cloned()
    }
}

const GATES: &str = "presets = false\n[gates.check]\ncommand = [\"check\"]\n[gates.online]\ncommand = [\"check\"]\n\
    network = true\n[gates.warns]\ncommand = [\"check\"]\nseverity = \"warning\"\n";

/// A change of a text file, whose base defines the gates.
fn request() -> Request {
    Request {
        gate: "check".into(),
        tenant: "acme".into(),
        attempt: Some(Attempt { run_id: "run-1".into(), step_id: "step-1".into(), number: 1 }),
        timeout: Duration::from_mins(1),
        workspace: packed(&[("nofx.toml", GATES), ("notes.txt", "new\n")]),
        base: Some(BaseInput::Archive(packed(&[("nofx.toml", GATES), ("notes.txt", "old\n")]))),
        base_given_by: GivenBy::Plan,
        base_origin: None,
        policy: GatePolicy { reuse_evidence: true, ..GatePolicy::default() },
        approvals: Vec::new(),
        risky: true,
    }
}

async fn judged(request: &Request, runner: &Fake) -> Judged {
    let work = tempfile::tempdir().unwrap();
    judge(request, &Settings::new(work.path().to_owned()), runner).await
}

#[tokio::test]
async fn the_same_inputs_get_the_earlier_verdict_without_a_run() {
    let runner = Fake::new();
    let first = judged(&request(), &runner).await;
    assert_eq!(first.evidence.verdict, Verdict::Passed, "{:?}", first.evidence.reason);
    runner.keep(&first, |_| {});
    let mut again = request();
    again.attempt = Some(Attempt { run_id: "run-2".into(), step_id: "step-2".into(), number: 1 });
    let second = judged(&again, &runner).await;
    assert_eq!(runner.runs(), 1);
    let (found, earlier) = (&second.evidence, &first.evidence);
    assert_eq!((found.verdict, &found.reason), (Verdict::Passed, &earlier.reason));
    assert_eq!(
        (&found.command, &found.toolchain, &found.sandbox),
        (&earlier.command, &earlier.toolchain, &earlier.sandbox)
    );
    let sha256 = earlier.encode().unwrap().sha256;
    let reused = Reused { run_id: "run-1".into(), step_id: "step-1".into(), evidence: sha256 };
    assert_eq!((&found.reused, &found.attempt), (&Some(reused), &again.attempt));
    assert!(found.not_proved.contains(&DoubtCode::Reused.into()));
    assert_eq!(second.reuse_key, None, "a chain of repetitions would hide the run");
}

#[tokio::test]
async fn with_another_input_the_gate_runs_again() {
    let first = judged(&request(), &Fake::new()).await;
    let without_reuse = GatePolicy::default();
    let stricter = GatePolicy { minimum_threshold: Some(0.5), reuse_evidence: true, ..GatePolicy::default() };
    let others = [
        Request { workspace: packed(&[("nofx.toml", GATES), ("notes.txt", "newer\n")]), ..request() },
        Request {
            base: Some(BaseInput::Archive(packed(&[("nofx.toml", GATES), ("notes.txt", "older\n")]))),
            ..request()
        },
        Request { base_given_by: GivenBy::Step, ..request() },
        Request { policy: without_reuse, ..request() },
        Request { policy: stricter, ..request() },
        Request { tenant: "other".into(), ..request() },
        Request { gate: "warns".into(), ..request() },
    ];
    for (at, other) in others.iter().enumerate() {
        let runner = Fake::new();
        runner.keep(&first, |_| {});
        let found = judged(other, &runner).await.evidence;
        assert_eq!((runner.runs(), found.reused), (1, None), "{at}");
    }
    for runner in [Fake { node: "22.2.0", ..Fake::new() }, Fake { level: "landlock", ..Fake::new() }] {
        runner.keep(&first, |_| {});
        judged(&request(), &runner).await;
        assert_eq!(runner.runs(), 1);
    }
}

#[tokio::test]
async fn earlier_evidence_that_is_not_a_plain_pass_of_the_same_inputs_is_not_used() {
    let first = judged(&request(), &Fake::new()).await;
    let approval =
        || Approval { gate_id: "g".into(), by: "ann".into(), at: String::new(), subject: String::new(), waived: false };
    let changes: [fn(&mut Evidence, Approval); 7] = [
        |evidence, _| evidence.verdict = Verdict::Failed,
        |evidence, approval| evidence.approvals.push(approval),
        |evidence, _| evidence.command = None,
        |evidence, _| evidence.subject = None,
        |evidence, _| evidence.reused = Some(Reused { run_id: "r".into(), step_id: "s".into(), evidence: "e".into() }),
        |evidence, _| evidence.toolchain.clear(),
        |evidence, _| drop(evidence.definition.as_mut().unwrap().thresholds.insert("coverage".into(), json!(0.1))),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let runner = Fake::new();
        runner.keep(&first, |evidence| change(evidence, approval()));
        let found = judged(&request(), &runner).await;
        assert_eq!((runner.runs(), found.evidence.reused), (1, None), "{at}");
    }
}

#[tokio::test]
async fn only_plain_passes_are_kept_for_later_runs() {
    let refused = [
        (Request { base: None, base_given_by: GivenBy::None, ..request() }, Fake::new()),
        (Request { gate: "online".into(), ..request() }, Fake::new()),
        (Request { gate: "warns".into(), ..request() }, Fake::new()),
        (Request { attempt: None, ..request() }, Fake::new()),
        (Request { policy: GatePolicy::default(), ..request() }, Fake::new()),
        (request(), Fake { code: 1, ..Fake::new() }),
        (request(), Fake { level: "limits", ..Fake::new() }),
        (request(), Fake { node: "", ..Fake::new() }),
    ];
    for (at, (request, runner)) in refused.iter().enumerate() {
        assert_eq!(judged(request, runner).await.reuse_key, None, "{at}");
    }
    assert!(judged(&request(), &Fake::new()).await.reuse_key.is_some());
}
