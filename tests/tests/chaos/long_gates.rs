//! Gates that take longer than Lambda allows. `nofx worker gate` serves their queue: a real process here, on a queue of the
//! emulator, which runs each command in a process of `gate_runner`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_sqs::types::QueueAttributeName;
use nofx_gates::attestation::Envelope;
use nofx_local::process::table::{self, Row};
use nofx_tests::database::TestDatabase;
use nofx_tests::environment::aws_endpoint_url;
use nofx_tests::lab::session;
use nofx_tests::{Lab, lab};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use shared::db::run::Control;
use shared::domain::tool::LONG_GATES;
use shared::domain::{RunId, StepId};
use shared::flow::control_run::control_run;
use shared::flow::sweep::sweep;
use shared::queue::{Queue, WakeUp};
use shared::signing::{create_private_key, private_key};
use tempfile::TempDir;
use tokio::sync::Mutex;

/// Timeout of every wait.
const WAIT_TIMEOUT: Duration = Duration::from_mins(2);
const POLL_PERIOD: Duration = Duration::from_millis(20);

/// The gate says that it runs, and ends when the test says so.
const DEFINITION: &str = r#"presets = false
[gates.slow]
command = ["sh", "-c", "echo > command_runs; until [ -e go ]; do sleep 0.1; done"]
timeout_s = 3600
"#;

/// A machine for long gates, and the lab in which its runs are.
struct Machine {
    lab: Lab,
    queue: Queue,
    sqs: aws_sdk_sqs::Client,
    queue_url: String,
    /// Workspaces of commands that the test knows. A killed runner leaves them behind.
    seen: Mutex<Vec<PathBuf>>,
    dir: TempDir,
}

impl Machine {
    async fn new() -> Self {
        let database = TestDatabase::create().await;
        let mut config = lab::config(&database.url);
        config.limits.long_gates = true;
        let lab = Lab::on(database, config).await;
        let sdk = lab::sdk().await;
        lab::create_bucket(&sdk, &lab.ctx.config.artifacts.bucket).await;
        let (sqs, prefix) = (aws_sdk_sqs::Client::new(&sdk), &lab.ctx.config.sqs_prefix);
        let created = sqs
            .create_queue()
            .queue_name(LONG_GATES.queue(prefix))
            .attributes(QueueAttributeName::VisibilityTimeout, LONG_GATES.visibility_s().to_string())
            .send()
            .await;
        let queue_url = created.expect("make a queue").queue_url.expect("its URL");
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("workspace")).expect("a workspace");
        fs::write(dir.path().join("workspace/nofx.toml"), DEFINITION).expect("write the definition");
        create_private_key(&dir.path().join("key.pem")).expect("a key");
        Self { queue: Queue::sqs(sqs.clone(), prefix), sqs, queue_url, seen: Mutex::default(), lab, dir }
    }

    /// Posts a plan with this many gates, one after the other. Its wake-ups are still in the lab's channel.
    async fn submit(&self, gates: usize) -> (RunId, StepId) {
        let step = |index| json!({ "name": format!("g{index}"), "tool": "gate:slow", "timeout_s": 3600 });
        let steps: Vec<Value> = (0..gates).map(step).collect();
        let run = self.lab.submit(&json!({ "goal": "wait", "steps": steps })).await;
        (run, self.lab.step(run, "g0").await)
    }

    /// Sends the wake-ups of the lab's channel to the queue.
    async fn send_wakeups(&self) -> Vec<WakeUp> {
        let sent = self.lab.sent().await;
        self.queue.send(sent.clone()).await.expect("send wake-ups");
        sent
    }

    /// The variables of the worker.
    fn variables(&self) -> [(&'static str, String); 12] {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let config = &self.lab.ctx.config;
        [
            ("DATABASE_URL", self.lab.database.worker_url()),
            ("AWS_ENDPOINT_URL", aws_endpoint_url()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("SQS_PREFIX", config.sqs_prefix.clone()),
            ("ARTIFACTS_BUCKET", config.artifacts.bucket.clone()),
            ("NOFX_TENANT", config.tenant.0.clone()),
            ("SIGNING_KEY_FILE", path("key.pem")),
            ("GATE_DEFAULT_WORKSPACE", path("workspace")),
            ("GATE_DEFAULT_BASE", path("workspace")),
            ("GATE_WORK_DIR", path("gate")),
        ]
    }

    /// Starts `nofx worker gate`.
    fn start(&self) -> Poller {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).expect("a log");
        let child = Command::new(program("nofx"))
            .args(["worker", "gate"])
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"))
            .envs(self.variables())
            .env("GATE_RUNNER_WORK_DIR", self.dir.path().join("runner"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn();
        Poller(child.expect("start nofx worker gate"))
    }

    /// Waits until another command runs, and returns its workspace.
    async fn running(&self) -> PathBuf {
        let (runner, mut seen) = (self.dir.path().join("runner"), self.seen.lock().await);
        let found = until("a command runs", self, async || find(&runner, "command_runs", &seen)).await;
        seen.push(found.clone());
        found
    }

    /// Lets a command end.
    fn release(workspace: &Path) {
        fs::write(workspace.join("go"), "").expect("write a file");
    }

    async fn until_status(&self, run: RunId, status: &str) {
        until(status, self, async || (self.lab.run_status(run).await == status).then_some(())).await;
    }

    /// Messages of the queue: those that a poll can receive, and those in work.
    async fn messages(&self) -> (String, String) {
        let (visible, hidden) = (
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        );
        let request = self.sqs.get_queue_attributes().queue_url(&self.queue_url);
        let answer = request.attribute_names(visible.clone()).attribute_names(hidden.clone()).send().await;
        let mut counts = answer.expect("attributes").attributes.expect("attributes");
        (counts.remove(&visible).expect("a count"), counts.remove(&hidden).expect("a count"))
    }

    async fn until_messages(&self, visible: &str, hidden: &str) {
        let wanted = (visible.to_owned(), hidden.to_owned());
        until("messages", self, async || (self.messages().await == wanted).then_some(())).await;
    }

    /// The step's evidence, and the statement about it whose signature holds.
    async fn evidence(&self, step: StepId, attempt: i32) -> (Value, Value) {
        let read = async |kind: &str| {
            let sql = "select uri from nofx.artifact where step_id = $1 and attempt = $2 and type = $3";
            let row = self.lab.admin.query_one(sql, &[&step.0, &attempt, &kind]).await.expect("one artifact");
            let uri: String = row.get(0);
            let key = uri.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).expect("an S3 URI").1.to_owned();
            let bucket = &self.lab.ctx.config.artifacts.bucket;
            let object = lab::s3(&lab::sdk().await).get_object().bucket(bucket).key(key).send().await;
            object.expect("an object").body.collect().await.expect("its bytes").to_vec()
        };
        let evidence = serde_json::from_slice(&read("gate_evidence").await).expect("evidence");
        let key = private_key(&self.dir.path().join("key.pem")).expect("a key").public().clone();
        let envelope = Envelope::read(&read("gate_attestation").await).expect("an envelope");
        let verified = envelope.verify(&[key], 1).expect("a signature that holds");
        (evidence, serde_json::to_value(verified.statement().expect("a statement")).expect("JSON"))
    }
}

/// A running `nofx worker gate`.
struct Poller(Child);

impl Poller {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("signal the worker");
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_none()
    }

    fn ended(&mut self) -> ExitStatus {
        self.0.wait().expect("the worker ends")
    }

    /// Its `gate_runner`, then the processes below that.
    fn runner(&self) -> Vec<Row> {
        let mut rows = table::tree(&table::read(), self.0.id());
        rows.retain(|row| row.pid != self.0.id());
        assert_eq!(rows.first().map(|row| row.program.as_str()), Some("gate_runner"), "{rows:?}");
        assert!(rows.len() > 1, "the command runs: {rows:?}");
        rows
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program of this workspace, built now.
fn program(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--bin", "nofx", "--bin", "gate", "--bin", "gate_runner"])
        .current_dir(root)
        .status();
    assert!(built.expect("run cargo").success(), "the programs are built");
    // This test is in the folder `deps` beside them.
    let own = std::env::current_exe().expect("this program");
    own.parent().and_then(Path::parent).expect("the folder of programs").join(name)
}

async fn until<T>(what: &str, machine: &Machine, check: impl AsyncFn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        if start.elapsed() > WAIT_TIMEOUT {
            let log = fs::read_to_string(machine.dir.path().join("log")).unwrap_or_default();
            panic!("timed out waiting: {what}\n{log}");
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

async fn until_ended(machine: &Machine, rows: &[Row]) {
    until("the command ends", machine, async || {
        rows.iter().all(|row| table::find(row.pid).is_none_or(|found| found.started != row.started)).then_some(())
    })
    .await;
}

/// Another folder below `root` that holds a file of this name.
fn find(root: &Path, name: &str, but: &[PathBuf]) -> Option<PathBuf> {
    fs::read_dir(root).ok()?.flatten().map(|entry| entry.path()).find_map(|path| match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => find(&path, name, but),
        Ok(_) if path.ends_with(name) => Some(root.to_owned()).filter(|root| !but.contains(root)),
        _ => None,
    })
}

#[tokio::test]
async fn nofx_env_prints_what_the_worker_needs() {
    let machine = Machine::new().await;
    let state = machine.dir.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("ports.json"), r#"{"http": 1, "emulator": 2}"#).unwrap();
    let output = Command::new(program("nofx"))
        .arg("env")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .envs([("NOFX_STATE_DIR", state.as_os_str()), ("DATABASE_URL", "postgres://x".as_ref())])
        .envs([("GATE_DEFAULT_BASE", machine.dir.path()), ("LONG_GATES", "true".as_ref())])
        .output()
        .expect("run nofx env");
    let printed = String::from_utf8_lossy(&output.stdout);
    let needed = machine.variables().map(|(name, _)| name).into_iter().chain(["LONG_GATES"]);
    for name in needed {
        assert!(printed.contains(&format!("export {name}='")), "{name} is not in {printed}");
    }
    private_key(&state.join("signing/key.pem")).expect("the key exists");
}

#[tokio::test]
async fn a_gate_of_an_hour_is_judged_once_although_its_message_comes_twice() {
    let machine = Machine::new().await;
    let (run, step) = machine.submit(1).await;
    let sent = machine.send_wakeups().await;
    assert_eq!(sent[0].handler, "gate_long");
    let mut one = machine.start();
    let workspace = machine.running().await;
    // The message in work stays hidden. Its copy, and the wake-up of another sender, find nothing to claim.
    machine.until_messages("0", "1").await;
    machine.queue.send(sent.clone()).await.unwrap();
    let mut other = machine.start();
    machine.until_messages("0", "1").await;
    assert!(one.is_alive() && other.is_alive());
    assert_eq!(machine.lab.snapshot(run).await["steps"]["g0"]["attempts"], json!(["running"]));
    Machine::release(&workspace);
    machine.until_status(run, "succeeded").await;
    machine.until_messages("0", "0").await;
    assert_eq!(machine.lab.snapshot(run).await["steps"]["g0"]["attempts"], json!(["succeeded"]));
    let (evidence, statement) = machine.evidence(step, 1).await;
    assert_eq!(evidence["verdict"], "passed", "{evidence}");
    assert!(evidence["sandbox"].is_object(), "{evidence}");
    assert_eq!(statement["predicate"]["result"], "PASSED", "{statement}");
    for poller in [&mut one, &mut other] {
        poller.signal(Signal::INT);
        assert!(poller.ended().success(), "an idle worker stops at once");
    }
    machine.lab.assert_invariants().await;
}

#[tokio::test]
async fn after_sigterm_the_gate_in_work_finishes_and_the_next_one_waits() {
    let machine = Machine::new().await;
    let (run, first) = machine.submit(2).await;
    let second = machine.lab.step(run, "g1").await;
    machine.send_wakeups().await;
    let mut poller = machine.start();
    let workspace = machine.running().await;
    poller.signal(Signal::TERM);
    Machine::release(&workspace);
    assert!(poller.ended().success());
    assert_eq!(machine.lab.step_status(first).await, "succeeded");
    assert_eq!(machine.lab.step_status(second).await, "ready", "another machine starts it");
    machine.evidence(first, 1).await;
    machine.until_messages("1", "0").await;
    let _other = machine.start();
    Machine::release(&machine.running().await);
    machine.until_status(run, "succeeded").await;
    machine.lab.assert_invariants().await;
}

#[tokio::test]
async fn a_killed_runner_leaves_signed_evidence_and_the_gate_runs_again() {
    let machine = Machine::new().await;
    let (run, step) = machine.submit(1).await;
    machine.send_wakeups().await;
    let mut poller = machine.start();
    machine.running().await;
    let runner = poller.runner();
    let pid = i32::try_from(runner[0].pid).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::KILL).expect("kill gate_runner");
    until_ended(&machine, &runner).await;
    let workspace = machine.running().await;
    assert!(poller.is_alive());
    let (evidence, statement) = machine.evidence(step, 1).await;
    assert_eq!((&evidence["verdict"], &evidence["reason"]["code"]), (&json!("failed"), &json!("runner_lost")));
    assert_eq!(statement["predicate"]["result"], "FAILED", "{statement}");
    Machine::release(&workspace);
    machine.until_status(run, "succeeded").await;
    assert_eq!(machine.lab.snapshot(run).await["steps"]["g0"]["failures"], 1, "it counts as a failure to retry");
    machine.evidence(step, 2).await;
    machine.lab.assert_invariants().await;
}

#[tokio::test]
async fn a_killed_worker_leaves_no_process_and_another_takes_over_after_the_lease() {
    let machine = Machine::new().await;
    let (run, step) = machine.submit(1).await;
    machine.send_wakeups().await;
    let mut poller = machine.start();
    machine.running().await;
    let runner = poller.runner();
    poller.signal(Signal::KILL);
    poller.ended();
    until_ended(&machine, &runner).await;
    // Its message stays hidden for 12 hours. The lease ends earlier.
    machine.until_messages("0", "1").await;
    assert_eq!(sweep(&machine.lab.ctx).await.unwrap().leases_ended, 0);
    machine.lab.lease_over(step).await;
    assert_eq!(sweep(&machine.lab.ctx).await.unwrap().leases_ended, 1);
    machine.send_wakeups().await;
    let _other = machine.start();
    Machine::release(&machine.running().await);
    machine.until_status(run, "succeeded").await;
    assert_eq!(machine.lab.snapshot(run).await["steps"]["g0"]["attempts"], json!(["lost", "succeeded"]));
    machine.lab.assert_invariants().await;
}

#[tokio::test]
async fn a_cancelled_gate_ends_at_once_and_the_worker_takes_the_next_one() {
    let machine = Machine::new().await;
    let (cancelled, _) = machine.submit(1).await;
    machine.send_wakeups().await;
    let poller = machine.start();
    machine.running().await;
    let runner = poller.runner();
    control_run(
        &machine.lab.ctx,
        &session(&machine.lab.ctx.db, &machine.lab.tenant),
        cancelled,
        Control::Cancel,
        "ann",
    )
    .await
    .unwrap();
    until_ended(&machine, &runner).await;
    let (run, _) = machine.submit(1).await;
    machine.send_wakeups().await;
    Machine::release(&machine.running().await);
    machine.until_status(run, "succeeded").await;
    assert_eq!(machine.lab.run_status(cancelled).await, "cancelled");
    machine.lab.assert_invariants().await;
}
