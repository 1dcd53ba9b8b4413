//! `gate:*` with a real worker: what a judgement leaves in the database and in storage. The runner is a script that answers
//! with a bundle of the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use ::gate::{Gate, Runners};
use ::workspace::{Git, Workspaces};
use nofx_gates::attestation::Envelope;
use nofx_gates::evidence::{Evidence, Source, Verdict};
use nofx_gates::judge::Settings;
use nofx_gates::run::{Bundle, CommandRun, Exit, Output};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::config::SigningConfig;
use shared::domain::digest::sha256_hex;
use shared::domain::{ArtifactId, ArtifactRef, RunId};
use shared::signing::{PrivateKey, PublicKey, Signer};
use shared::worker::Handler;

use crate::gateway::{Gateway, Shape};

/// Answers with the bundle beside it, or ends with an error if there is none. It leaves a trace of each call.
const RUNNER: &str = r#"#!/usr/bin/env python3
import hashlib, json, pathlib, sys
here = pathlib.Path(__file__).parent
spec = json.load(sys.stdin)
with open(here / "calls", "a") as calls:
    calls.write(json.dumps(spec) + "\n")
if not (here / "bundle").exists():
    sys.exit(9)
bundle = (here / "bundle").read_bytes()
pathlib.Path(spec["bundle"]["file"]).write_bytes(bundle)
print(json.dumps({"sha256": hashlib.sha256(bundle).hexdigest(), "size_bytes": len(bundle)}))
"#;

/// How much of the end of an output a runner answers with, and of the start.
const TAIL: usize = 1_000;

/// A test's stack with the functions `gate` and `workspace`.
pub struct Stack {
    pub lab: Lab,
    pub folder: tempfile::TempDir,
    pub key: PublicKey,
    pub script: Script,
}

impl Stack {
    pub async fn new() -> Self {
        let key = PrivateKey::generate().expect("a key");
        let public = key.public().clone();
        Self::signing(Signer::with_key(key), public).await
    }

    async fn signing(signer: Signer, key: PublicKey) -> Self {
        Self::with(signer, key, tempfile::tempdir().expect("a folder"), |workspaces| workspaces).await
    }

    /// A stack whose `workspace:git` reads the repositories below its folder instead of those at this beginning of a URL.
    pub async fn mirroring(url: &str) -> Self {
        let key = PrivateKey::generate().expect("a key");
        let public = key.public().clone();
        let folder = tempfile::tempdir().expect("a folder");
        let git = Git::mirrored(std::env::var("PATH").expect("a PATH"), url, folder.path());
        Self::with(Signer::with_key(key), public, folder, |workspaces| workspaces.with_git(git)).await
    }

    async fn with(
        signer: Signer,
        key: PublicKey,
        folder: tempfile::TempDir,
        adapt: impl FnOnce(Workspaces) -> Workspaces,
    ) -> Self {
        let program = folder.path().join("gate_runner");
        fs::write(&program, RUNNER).expect("a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
        let gate = Arc::new(Gate {
            settings: Settings::new(folder.path().join("judge")),
            runners: Runners::Process { program },
            signer,
            default_workspace: None,
            default_base: None,
        });
        let work = folder.path().join("workspaces");
        let workspaces = Arc::new(adapt(Workspaces::new(work, std::env::var("PATH").expect("a PATH"))));
        let script = Script::overriding(move |step, store| {
            let (gate, workspaces) = (Arc::clone(&gate), Arc::clone(&workspaces));
            async move {
                match step.tool.as_str() {
                    tool if tool.starts_with("workspace:") => Some(workspaces.handle(&step, &store).await),
                    tool if tool.starts_with("gate:") => Some(Box::pin(gate.handle(&step, &store)).await),
                    _ => None,
                }
            }
        });
        Self { lab: Lab::with_bucket().await, folder, key, script }
    }

    /// From now on the runner answers that the command ended like this.
    pub fn answer(&self, exit: i32, printed: &str) {
        let mut bundle = Bundle::default();
        let entry = bundle.add("runs/0/log".into(), printed.as_bytes().to_vec());
        let bytes = printed.len() as u64;
        bundle.result.runs.push(CommandRun {
            variant: String::new(),
            root: "/work".into(),
            exit: Exit::Code(exit),
            ms: 5,
            output: Output {
                bytes,
                sha256: sha256_hex(printed.as_bytes()),
                head: (printed.len() > TAIL).then(|| printed[..TAIL].to_owned()),
                tail: printed[printed.len().saturating_sub(TAIL)..].to_owned(),
                entry: Some(entry),
            },
            reports: Vec::new(),
            sandbox: json!({ "level": "namespaces", "network": "none" }),
        });
        fs::write(self.path("bundle"), bundle.pack().expect("a bundle")).expect("it is written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the runner was asked to do.
    fn calls(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Submits a gate of a workspace with this `nofx.toml`, compared with a base that has another one.
    async fn submit(&self, base: &str, head: &str) -> RunId {
        let write = |name: &str, definition: &str| {
            plans::step(name, "workspace:write", json!({"files": {"nofx.toml": definition, "a.txt": "a\n"}}))
        };
        let inputs = json!({
            "workspace": "${{ steps.head.outputs.workspace }}", "base": "${{ steps.base.outputs.workspace }}",
        });
        let steps = json!([write("base", base), write("head", head), plans::step("gate", "gate:check", inputs)]);
        let run = self.lab.submit(&json!({ "goal": "g", "steps": steps })).await;
        self.settle().await;
        run
    }

    pub async fn settle(&self) {
        self.lab.settle(&self.script, Deliver::Once).await;
    }

    /// The step of the gate: status, outputs and error.
    pub async fn step(&self, run: RunId) -> Value {
        let sql = "select to_jsonb(s) from nofx.step s where run_id = $1 and name = 'gate'";
        self.lab.admin.query_one(sql, &[&run.0]).await.expect("a step").get(0)
    }

    /// The rows of gates of a run, the oldest first.
    pub async fn gates(&self, run: RunId) -> Vec<Value> {
        let sql = "select to_jsonb(g) from nofx.gate g where run_id = $1 order by created_at, id";
        self.lab.admin.query(sql, &[&run.0]).await.expect("gates").iter().map(|row| row.get(0)).collect()
    }

    /// The artifacts of a run with this type, the newest last.
    async fn artifacts(&self, run: RunId, kind: &str) -> Vec<Value> {
        let sql = "select to_jsonb(a) from nofx.artifact a where run_id = $1 and type = $2 order by created_at, id";
        self.lab.admin.query(sql, &[&run.0, &kind]).await.expect("artifacts").iter().map(|row| row.get(0)).collect()
    }

    /// The bytes of an artifact. Storage checks their sha256.
    async fn bytes(&self, row: &Value) -> Vec<u8> {
        let text = |name: &str| row[name].as_str().expect("a text").to_owned();
        let artifact = ArtifactRef {
            id: text("id").parse::<ArtifactId>().expect("an id"),
            uri: text("uri"),
            hash: text("hash"),
            size_bytes: row["size_bytes"].as_u64().expect("a size"),
            media_type: String::new(),
        };
        self.lab.ctx.storage.get(&artifact, 64 << 20).await.expect("its bytes")
    }

    /// The newest evidence of a run.
    pub async fn evidence(&self, run: RunId) -> (Value, Evidence) {
        let row = self.artifacts(run, "gate_evidence").await.pop().expect("evidence");
        let evidence = Evidence::decode(&self.bytes(&row).await, row["hash"].as_str().expect("a hash"));
        (row, evidence.expect("evidence"))
    }

    pub async fn decide(&self, gate: &Value, verb: &str) {
        let path = format!("/gates/{}/{verb}", gate["id"].as_str().expect("an id"));
        let body = json!({ "actor": "ann", "reason": "it is intended" });
        let answer = Gateway::approvals(&self.lab, Shape::Http).post(&path, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        self.settle().await;
    }
}

const STRICT: &str = "[gates.check]\ncommand = \"check --strict\"\n";
const LAX: &str = "[gates.check]\ncommand = \"check --lax\"\n";

#[tokio::test]
async fn a_passed_gate_leaves_evidence_attachments_a_signature_and_its_row() {
    let stack = Stack::new().await;
    stack.answer(0, &"fine\n".repeat(20_000));
    let run = stack.submit(STRICT, STRICT).await;
    let step = stack.step(run).await;
    assert_eq!(step["status"], "succeeded", "{step:#}");
    let (row, evidence) = stack.evidence(run).await;
    assert_eq!((evidence.verdict, evidence.definition.unwrap().source), (Verdict::Passed, Source::Base));

    let outputs = &step["outputs"];
    let digest = json!(evidence.subject.unwrap().tree);
    assert_eq!((&outputs["verdict"], &outputs["tree"]), (&json!("passed"), &digest));
    assert_eq!((&outputs["evidence_id"], &outputs["evidence_hash"]), (&row["id"], &row["hash"]));

    let gates = stack.gates(run).await;
    assert_eq!(gates.len(), 1, "{gates:#?}");
    assert_eq!((&gates[0]["gate_type"], &gates[0]["status"]), (&json!("gate:check"), &json!("passed")));
    assert_eq!((&gates[0]["subject"]["tree"], &gates[0]["subject"]["evidence"]), (&digest, &row["hash"]));
    assert_eq!(gates[0]["evidence_uri"], row["uri"]);

    let stored = stack.artifacts(run, "gate_attachment").await;
    assert_eq!(evidence.attachments.len(), stored.len());
    assert!(!stored.is_empty(), "the log is an attachment");
    for (attachment, row) in evidence.attachments.iter().zip(&stored) {
        assert_eq!(
            json!([attachment.name, attachment.artifact_id, attachment.sha256]),
            json!([row["name"], row["id"], row["hash"]])
        );
        stack.bytes(row).await;
    }

    let signed = stack.artifacts(run, "gate_attestation").await;
    let envelope = Envelope::read(&stack.bytes(&signed[0]).await).expect("an envelope");
    let verified = envelope.verify(std::slice::from_ref(&stack.key), 1).expect("a signature");
    let statement = serde_json::to_value(verified.statement().expect("a statement")).expect("JSON");
    assert_eq!(statement["predicate"]["result"], "PASSED");
    assert!(statement.to_string().contains(row["hash"].as_str().unwrap()), "{statement:#}");
    stack.lab.assert_invariants().await;
}

#[tokio::test]
async fn a_failed_gate_fails_its_step_for_good_and_says_where_the_evidence_is() {
    let stack = Stack::new().await;
    stack.answer(1, "error: no\n");
    let run = stack.submit(STRICT, STRICT).await;
    let step = stack.step(run).await;
    assert_eq!((&step["status"], &step["attempt"]), (&json!("failed"), &json!(1)));
    let (row, evidence) = stack.evidence(run).await;
    assert_eq!(evidence.verdict, Verdict::Failed);
    let error = &step["error"];
    assert_eq!((&error["code"], &error["details"]["reason"]), (&json!("gate_failed"), &json!("command_failed")));
    assert_eq!(error["details"]["evidence_uri"], row["uri"]);
    let gates = stack.gates(run).await;
    assert_eq!((gates.len(), &gates[0]["status"]), (1, &json!("failed")));
    assert!(gates[0]["reason"].as_str().unwrap().contains("error: no"), "{gates:#?}");
    assert_eq!(stack.artifacts(run, "gate_attestation").await.len(), 1, "a failure is signed too");
    stack.lab.assert_invariants().await;
}

#[tokio::test]
async fn the_runner_gets_the_workspace_and_the_command_of_the_base() {
    let stack = Stack::new().await;
    stack.answer(0, "");
    stack.submit(STRICT, &format!("{STRICT}\n# A comment changes nothing.\n")).await;
    let calls = stack.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["job"]["command"]["argv"], json!(["check", "--strict"]));
    let text = calls[0].to_string();
    for secret in ["DATABASE_URL", "AWS_", "postgres://", "PRIVATE KEY"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn weakened_checks_block_on_a_person_who_sees_the_difference() {
    let stack = Stack::new().await;
    stack.answer(0, "");
    let run = stack.submit(STRICT, LAX).await;
    assert_eq!(stack.step(run).await["status"], "blocked");
    assert_eq!(stack.calls().len(), 0, "nothing runs before a person decides");
    let gates = stack.gates(run).await;
    assert_eq!((gates.len(), &gates[0]["gate_type"]), (1, &json!("manual:gate-change")));
    assert_eq!((&gates[0]["status"], &gates[0]["on_pass"]), (&json!("pending"), &json!("resume")));
    let (_, evidence) = stack.evidence(run).await;
    assert_eq!(
        (evidence.verdict, &gates[0]["subject"]["tree"]),
        (Verdict::Blocked, &json!(evidence.subject.unwrap().tree))
    );
    let shown = stack.artifacts(run, "gate_attachment").await;
    assert_eq!(gates[0]["evidence_uri"], shown[0]["uri"], "the gate shows the difference");
    let difference = String::from_utf8(stack.bytes(&shown[0]).await).unwrap();
    assert!(difference.contains("check --lax"), "{difference}");

    stack.decide(&gates[0], "approve").await;
    let step = stack.step(run).await;
    assert_eq!(step["status"], "succeeded", "{step:#}");
    assert_eq!(stack.calls()[0]["job"]["command"]["argv"], json!(["check", "--lax"]));
    let (_, evidence) = stack.evidence(run).await;
    assert_eq!((evidence.definition.unwrap().source, evidence.approvals[0].by.as_str()), (Source::Approved, "ann"));
    assert_eq!(evidence.approvals[0].gate_id, gates[0]["id"].as_str().unwrap());
    assert!(!evidence.approvals[0].waived);
    stack.lab.assert_invariants().await;
}

#[tokio::test]
async fn the_evidence_of_waived_checks_does_not_say_that_somebody_approved_them() {
    let stack = Stack::new().await;
    stack.answer(0, "");
    let run = stack.submit(STRICT, LAX).await;
    stack.decide(&stack.gates(run).await[0], "waive").await;
    assert_eq!(stack.step(run).await["status"], "succeeded");
    let (_, evidence) = stack.evidence(run).await;
    let decision = &evidence.approvals[0];
    assert_eq!((decision.by.as_str(), decision.waived), ("ann", true));
    let doubts: Vec<_> = evidence.not_proved.iter().map(|doubt| doubt.code.as_str()).collect();
    assert!(doubts.contains(&"change_waived"), "{doubts:?}");
}

#[tokio::test]
async fn a_policy_that_refuses_weakened_checks_fails_the_step() {
    let stack = Stack::new().await;
    let policy = json!({ "document": { "gates": { "on_weakening": "fail" } }, "actor": "ann" });
    let answer = Gateway::api(&stack.lab, Shape::Http).send("PUT", "/policy", &[], Some(policy.to_string())).await;
    assert!(answer.status < 300, "{}", answer.body);
    let run = stack.submit(STRICT, LAX).await;
    let step = stack.step(run).await;
    assert_eq!((&step["status"], &step["error"]["code"]), (&json!("failed"), &json!("checks_weakened")), "{step:#}");
    stack.lab.assert_invariants().await;
}

#[tokio::test]
async fn a_lost_runner_is_tried_again_and_every_attempt_leaves_evidence() {
    let stack = Stack::new().await;
    let run = stack.submit(STRICT, STRICT).await;
    let step = stack.step(run).await;
    assert_eq!((&step["status"], &step["error"]["code"]), (&json!("failed"), &json!("runner_lost")), "{step:#}");
    let attempts = step["attempt"].as_u64().unwrap();
    assert!(attempts > 1, "{step:#}");
    assert_eq!(stack.calls().len() as u64, attempts);
    assert_eq!(stack.artifacts(run, "gate_evidence").await.len() as u64, attempts);
    assert_eq!(stack.artifacts(run, "gate_attestation").await.len() as u64, attempts);
    let (_, evidence) = stack.evidence(run).await;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Failed, "runner_lost"));
    assert_eq!(u64::from(evidence.attempt.unwrap().number), attempts);
    assert_eq!(stack.gates(run).await, Vec::<Value>::new(), "there is no verdict");
    stack.lab.assert_invariants().await;
}

#[tokio::test]
async fn without_a_signing_key_nothing_runs() {
    let key = PrivateKey::generate().expect("a key").public().clone();
    let sdk = nofx_tests::lab::sdk().await;
    let stack = Stack::signing(Signer::new(&SigningConfig::default(), &sdk), key).await;
    stack.answer(0, "");
    let run = stack.submit(STRICT, STRICT).await;
    let step = stack.step(run).await;
    assert_eq!(
        (&step["status"], &step["error"]["code"]),
        (&json!("failed"), &json!("signing_unavailable")),
        "{step:#}"
    );
    assert_eq!(stack.calls().len(), 0);
    assert!(stack.artifacts(run, "gate_evidence").await.is_empty());
}

#[tokio::test]
async fn a_gate_without_a_workspace_fails_with_a_reason() {
    let stack = Stack::new().await;
    let step = plans::step("gate", "gate:check", json!({}));
    let run = stack.lab.submit(&json!({ "goal": "g", "steps": [step] })).await;
    stack.settle().await;
    let step = stack.step(run).await;
    assert_eq!((&step["status"], &step["error"]["code"]), (&json!("failed"), &json!("no_workspace")));
}
