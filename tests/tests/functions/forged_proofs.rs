//! Proofs that a dishonest sweeper sealed, or that an owner of the database made it seal: what others signed before, and the
//! events, do not fit.

use nofx::commands::verify_proof::{Report, check};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::domain::digest::canonical_sha256;
use shared::domain::proof;
use shared::flow::seal_runs::{Sealer, seal_runs};
use shared::signing::{Signer, dsse};

use crate::gates::Stack;
use crate::proofs::{self, Keys, STRICT, assert_holds, keyring, options, released};

/// A proof of this content, with a valid seal.
async fn sealed(content: &Value, signer: &Signer) -> Vec<u8> {
    let statement = proof::seal_statement(content, "2026-11-30T00:00:00Z").unwrap();
    proof::file(content, &dsse::seal(&statement, signer).await.unwrap()).unwrap()
}

fn content(bytes: &[u8]) -> Value {
    serde_json::from_slice::<Value>(bytes).unwrap()["content"].take()
}

fn assert_fault(report: &Report, what: &str, path: &str, message: &str) {
    let is_it = |fault: &proof::Fault| fault.path.starts_with(path) && fault.message.contains(message);
    assert!(report.faults.iter().any(is_it), "{what}: {:#?}", report.faults);
}

/// Where the first item of a section is for which this holds.
fn place(content: &Value, section: &str, is_it: impl Fn(&Value) -> bool) -> usize {
    content[section].as_array().unwrap().iter().position(is_it).expect(section)
}

type Change = fn(&mut Value);

/// What an owner of the database may do before the seal, and the fault that shows it.
const CHANGES: [(&str, Change, &str, &str); 13] = [
    (
        "a failed gate that passed",
        |content| {
            let at = place(content, "gates", |gate| gate["status"] == "failed");
            content["gates"][at]["status"] = json!("passed");
        },
        "content.gates[",
        "the attestation says that it failed",
    ),
    (
        "a failed gate that is dropped",
        |content| {
            let at = place(content, "gates", |gate| gate["status"] == "failed");
            content["gates"].as_array_mut().unwrap().remove(at);
        },
        "content.gates",
        "is missing, and an event recorded that it was failed",
    ),
    (
        "a failed gate that is dropped with its events",
        |content| {
            let at = place(content, "gates", |gate| gate["status"] == "failed");
            content["gates"].as_array_mut().unwrap().remove(at);
            let events = content["events"].as_array_mut().unwrap();
            events.retain(|event| event["type"] != "gate.failed");
            for (at, event) in events.iter_mut().enumerate() {
                event["seq"] = json!(at + 1);
            }
            content["run"]["events"] = json!(events.len());
        },
        "content.artifacts[",
        "its gate is missing",
    ),
    (
        "a gate that events know as failed",
        |content| {
            let at = place(content, "events", |event| event["type"] == "gate.passed");
            content["events"][at]["type"] = json!("gate.failed");
        },
        "content.gates[",
        "events say failed",
    ),
    (
        "an attempt that failed",
        |content| {
            let at = place(content, "attempts", |one| one["step"] == "gate" && one["status"] == "failed");
            content["attempts"][at]["status"] = json!("succeeded");
        },
        "content.attempts",
        "attempt 1 of the step gate is succeeded",
    ),
    (
        "a step without its last event",
        |content| {
            let at = place(content, "events", |event| event["type"] == "step.succeeded" && event["step"] == "text");
            content["events"][at]["type"] = json!("step.skipped");
        },
        "content.steps[",
        "the last event of the step is step.skipped",
    ),
    (
        "a run that failed",
        |content| {
            let at = place(content, "events", |event| event["type"] == "run.succeeded");
            content["events"][at]["type"] = json!("run.failed");
        },
        "content.run.status",
        "run.failed",
    ),
    (
        "a generation without a retry",
        |content| content["run"]["generation"] = json!(3),
        "content.run.generation",
        "1 events",
    ),
    (
        "a plan that nobody approved",
        |content| {
            content["plan"]["goal"] = json!("another goal");
            content["run"]["plan_digest"] = json!(canonical_sha256(&content["plan"]).unwrap());
        },
        "content.decisions[0]",
        "something else: the plan",
    ),
    (
        "another person",
        |content| content["decisions"][0]["actor"] = json!("mallory"),
        "content.decisions[0]",
        "something else: the person",
    ),
    (
        "another time",
        |content| content["decisions"][0]["at"] = json!("2020-01-01T00:00:00.000000+00:00"),
        "content.decisions[0]",
        "something else: the time",
    ),
    (
        "another name at the gate",
        |content| {
            let at = place(content, "gates", |gate| gate["gate_type"] == "manual:release");
            content["gates"][at]["approved_by"] = json!("mallory");
        },
        "content.gates[",
        "other people than those who signed",
    ),
    (
        "evidence that was made from nothing",
        |content| content["edges"] = json!([]),
        "content.gates[",
        "another tree than the one that the step took",
    ),
];

#[tokio::test]
async fn rows_that_an_owner_of_the_database_changed_before_the_seal_do_not_verify() {
    let (mut stack, keys) = (Stack::new().await, Keys::new());
    let (run, key) = released(&mut stack, &keys).await;
    let honest = content(&proofs::proof(&stack.lab, run).await);
    let (signer, options) = (keys.signer("seals.pem"), options(keyring(&[&key], Some(&stack.key))));
    assert_holds(&check(&sealed(&honest, &signer).await, &options));
    for (what, change, path, message) in CHANGES {
        let mut forged = honest.clone();
        change(&mut forged);
        assert_fault(&check(&sealed(&forged, &signer).await, &options), what, path, message);
    }
    // A seal has one spelling.
    let mut file: Value = serde_json::from_slice(&sealed(&honest, &signer).await).unwrap();
    file["seal"]["signatures"][0].as_object_mut().unwrap().remove("keyid");
    let bare = proof::file(&honest, &file["seal"]).unwrap();
    assert_fault(&check(&bare, &options), "no key id", "seal", "not written as seals are");
}

#[tokio::test]
async fn an_attestation_of_another_run_does_not_verify() {
    let (mut stack, keys) = (Stack::new().await, Keys::new());
    let (run, key) = released(&mut stack, &keys).await;
    let mut forged = content(&proofs::proof(&stack.lab, run).await);
    let (other, _) = released(&mut stack, &keys).await;
    let other = content(&proofs::proof(&stack.lab, other).await);
    // The same files were judged, with the same result, so nothing else differs.
    for kind in ["gate_attestation", "gate_evidence"] {
        let is_it = |artifact: &Value| artifact["type"] == kind && artifact["attempt"] == 2;
        let (at, from) = (place(&forged, "artifacts", is_it), place(&other, "artifacts", is_it));
        let (mine, theirs) = (forged["artifacts"][at].clone(), other["artifacts"][from].clone());
        forged["artifacts"][at]["hash"] = theirs["hash"].clone();
        let document = place(&forged, "documents", |one| one["artifact"] == mine["id"]);
        let text = place(&other, "documents", |one| one["artifact"] == theirs["id"]);
        let text = other["documents"][text]["text"].clone();
        forged["documents"][document] = if kind == "gate_evidence" {
            json!({ "artifact": mine["id"], "sha256": theirs["hash"], "omitted": "too_large" })
        } else {
            json!({ "artifact": mine["id"], "sha256": theirs["hash"], "text": text })
        };
    }
    let report = check(&sealed(&forged, &keys.signer("seals.pem")).await, &options(keyring(&[&key], Some(&stack.key))));
    assert_fault(&report, "another run", "content.gates[", "its attestation is about another attempt");
}

#[tokio::test]
async fn a_gate_that_the_change_defined_itself_is_warned_and_does_not_pass() {
    let (mut stack, keys) = (Stack::new().await, Keys::new());
    let key = keys.use_in(&mut stack.lab, "seals.pem");
    let steps = json!([
        plans::step("head", "workspace:write", json!({ "files": { "nofx.toml": STRICT, "a.txt": "a" } })),
        plans::step("gate", "gate:check", json!({ "workspace": "${{ steps.head.outputs.workspace }}" })),
    ]);
    stack.answer(0, "fine\n");
    let run = stack.lab.submit(&json!({ "goal": "g", "steps": steps })).await;
    stack.settle().await;
    assert_eq!(stack.lab.run_status(run).await, "succeeded");
    seal_runs(&stack.lab.ctx, &Sealer::new(&stack.lab.ctx)).await.unwrap();
    let bytes = proofs::proof(&stack.lab, run).await;
    let options = options(keyring(&[&key], Some(&stack.key)));
    let report = check(&bytes, &options);
    assert!(report.faults.is_empty() && !report.passes, "{:#?}", report.faults);
    assert!(
        report.missing[0].contains("gate:check of gate is WARNED: The change under test defined"),
        "{:?}",
        report.missing
    );
    assert!(report.checked.iter().any(|check| check.what == "gate:check is WARNED, in attempt 1 of gate"));

    // Also if the evidence is not there, which says so.
    let mut shorter = content(&bytes);
    let is_evidence = |one: &Value| one["type"] == "gate_evidence";
    let evidence = shorter["artifacts"][place(&shorter, "artifacts", is_evidence)]["id"].clone();
    let at = place(&shorter, "documents", |one| one["artifact"] == evidence);
    let document = shorter["documents"][at].as_object_mut().unwrap();
    document.remove("text");
    document.insert("omitted".to_owned(), json!("too_large"));
    let report = check(&sealed(&shorter, &keys.signer("seals.pem")).await, &options);
    let doubts: Vec<&str> = report.not_proved.iter().map(|doubt| doubt.code.as_str()).collect();
    assert!(report.faults.is_empty() && !report.passes, "{:#?}", report.faults);
    assert!(doubts.contains(&"evidence_not_included") && doubts.contains(&"definition_candidate"), "{doubts:?}");
}

#[tokio::test]
async fn a_generation_keeps_its_first_proof_whoever_deletes_its_row() {
    let (mut lab, keys) = (Lab::with_bucket().await, Keys::new());
    let key = keys.use_in(&mut lab, "seals.pem");
    let run = lab.submit(&plans::wide(1)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let sealer = Sealer::new(&lab.ctx);
    assert_eq!(seal_runs(&lab.ctx, &sealer).await.unwrap(), 1);
    let first = proofs::proof(&lab, run).await;
    let forget =
        "alter table nofx.seal disable trigger all; delete from nofx.seal; alter table nofx.seal enable trigger all;
                  update nofx.run set sealed_generation = 0, goal = 'another goal'";
    lab.admin.batch_execute(forget).await.unwrap();
    // The key was replaced since.
    let (new, mut config) = (keys.use_in(&mut lab, "new.pem"), lab.ctx.config.seals.clone());
    config.public_keys = Some(format!("{}{}", new.to_pem(), key.to_pem()));
    lab.ctx.config.seals = config;
    let sealer = Sealer::new(&lab.ctx);
    assert_eq!(seal_runs(&lab.ctx, &sealer).await.unwrap(), 1);
    assert_eq!(proofs::proof(&lab, run).await, first);
    assert_holds(&check(&first, &options(keyring(&[&key], None))));
    // Both seals are in the audit, with one digest.
    let sql = "select count(*), count(distinct a.body::jsonb -> 'detail' ->> 'digest') from nofx.audit a
                where a.action = 'runs.sealed' and a.subject = $1";
    let row = lab.admin.query_one(sql, &[&run.to_string()]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 1));

    // A file that somebody put into its place is not taken, and nothing else is sealed.
    let run = lab.submit(&plans::wide(1)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    lab.ctx.storage.store_proof((&lab.tenant, run, 1), &"0".repeat(64), b"{}".to_vec()).await.unwrap();
    let refused = seal_runs(&lab.ctx, &sealer).await.unwrap_err();
    assert!(format!("{refused:?}").contains("none of our keys"), "{refused:?}");
    lab.assert_invariants().await;
}
