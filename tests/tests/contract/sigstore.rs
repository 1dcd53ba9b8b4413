//! The envelopes of a real proof verify with `@sigstore/verify`.

use nofx_gates::attestation::{self, PREDICATE_TYPE};
use nofx_gates::evidence::{Evidence, Reason, Verdict};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::config::SigningConfig;
use shared::db::gate::GateDecision;
use shared::domain::gate::Decision;
use shared::domain::proof::SEAL_TYPE;
use shared::domain::{ArtifactRef, GateId, RunId, provenance};
use shared::flow::attest_decision;
use shared::flow::decide_gate::decide_gate;
use shared::flow::seal_runs::{Sealer, seal_runs};
use shared::signing::{PrivateKey, PublicKey, Signer, create_private_key, private_key};

use crate::oracle;

/// The proof of a run that made a text and was released by a person, and the key of its seal.
async fn proof(lab: &mut Lab, folder: &tempfile::TempDir) -> (Value, PublicKey) {
    let file = folder.path().join("seals.pem");
    create_private_key(&file).unwrap();
    let key = private_key(&file).unwrap().public().clone();
    lab.ctx.config.seals = SigningConfig { key_file: Some(file), ..SigningConfig::none("SEAL") };
    let steps = json!([
        plans::step("text", "codegen", json!({ "prompt": "say é" })),
        plans::step("release", "manual:release", json!({})),
    ]);
    let run = lab.submit(&json!({ "goal": "release it", "steps": steps })).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    approve(lab, run).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    assert_eq!(seal_runs(&lab.ctx, &Sealer::new(&lab.ctx)).await.unwrap(), 1);
    let sql = "select to_jsonb(s) from nofx.seal s where run_id = $1";
    let row: Value = lab.admin.query_one(sql, &[&run.0]).await.unwrap().get(0);
    let object = ArtifactRef {
        id: row["run_id"].as_str().unwrap().parse().unwrap(),
        uri: row["uri"].as_str().unwrap().to_owned(),
        hash: row["digest"].as_str().unwrap().to_owned(),
        size_bytes: row["size_bytes"].as_u64().unwrap(),
        media_type: String::new(),
    };
    let bytes = lab.ctx.storage.get(&object, 1 << 20).await.unwrap();
    (serde_json::from_slice(&bytes).unwrap(), key)
}

async fn approve(lab: &Lab, run: RunId) {
    let sql = "select id from nofx.gate where run_id = $1 and status = 'pending'";
    let gate_id = GateId(lab.admin.query_one(sql, &[&run.0]).await.unwrap().get(0));
    let decision = GateDecision { gate_id, decision: Decision::Approve, actor: "ann", reason: None, seen: None };
    decide_gate(&lab.ctx, &lab.session(), &decision).await.unwrap();
}

/// The attestation of a gate, and its key.
async fn attestation() -> (Value, PublicKey) {
    let key = PrivateKey::generate().unwrap();
    let public = key.public().clone();
    let reason = Reason { code: "passed".into(), message: "the command succeeded".into() };
    let evidence = Evidence { verdict: Verdict::Passed, ..Evidence::new("unit", reason, 1) };
    let payload = attestation::statement(&evidence, &"e".repeat(64)).unwrap().payload().unwrap();
    let envelope = attestation::sign(payload, &Signer::with_key(key)).await.unwrap().to_json().unwrap();
    (serde_json::from_slice(&envelope).unwrap(), public)
}

#[tokio::test]
async fn sigstore_accepts_every_envelope_of_a_proof_and_none_with_a_changed_byte() {
    let (mut lab, folder) = (Lab::with_bucket().await, tempfile::tempdir().unwrap());
    let (proof, seals) = proof(&mut lab, &folder).await;
    let decisions = lab.ctx.decisions.public_key().await.unwrap();
    let (attestation, evidence) = attestation().await;
    let with = |key: &PublicKey, envelope: &Value| json!({ "pem": key.to_pem(), "envelope": envelope });
    let mut given = vec![with(&seals, &proof["seal"]), with(&evidence, &attestation)];
    let mut wanted = vec![SEAL_TYPE, PREDICATE_TYPE];
    for envelope in proof["content"]["provenance"].as_array().unwrap() {
        given.push(with(&seals, envelope));
        wanted.push(provenance::PREDICATE_TYPE);
    }
    for decision in proof["content"]["decisions"].as_array().unwrap() {
        given.push(with(&decisions, &decision["envelope"]));
        wanted.push(attest_decision::PREDICATE_TYPE);
    }
    assert!(wanted.contains(&provenance::PREDICATE_TYPE) && wanted.contains(&attest_decision::PREDICATE_TYPE));
    let said = oracle::sigstore(json!(given).to_string().as_bytes()).await;
    assert_eq!(serde_json::from_str::<Vec<String>>(&said).unwrap(), wanted);
    lab.assert_invariants().await;
}
