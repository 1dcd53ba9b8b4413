//! Attestations verify with other implementations, and KMS signs them as keys in files do.

use aws_sdk_kms::types::{KeySpec, KeyUsageType};
use nofx_gates::attestation::{self, Envelope};
use nofx_gates::evidence::{
    Base, BaseOrigin, Definition, Evidence, GivenBy, Listed, Reason, Severity, Source, Subject, TestFailure, Tests,
    Verdict,
};
use nofx_gates::snapshot::TreeDigest;
use nofx_tests::lab;
use serde_json::{Value, json};
use shared::config::SigningConfig;
use shared::domain::proof;
use shared::domain::provenance::Index;
use shared::error::Error;
use shared::signing::{PrivateKey, PublicKey, Signer, dsse, public_keys};
use uuid::Uuid;

use crate::oracle;
use crate::target::Target;

/// Runs `tests/oracles/attestation.py`.
async fn oracle(arguments: &[&str], input: &Value) -> String {
    oracle::accepted("attestation.py", arguments, input.to_string().as_bytes()).await
}

async fn checked(envelope: &Envelope, key: &PublicKey) -> Value {
    let text = String::from_utf8(envelope.to_json().unwrap()).unwrap();
    let said = oracle(&[], &json!({"pem": key.to_pem(), "envelope": text})).await;
    serde_json::from_str(&said).expect("JSON")
}

fn evidence() -> Evidence {
    let tree = |digit: &str| TreeDigest { sha1: digit.repeat(40), sha256: digit.repeat(64) };
    let failure = TestFailure { suite: "sum".into(), name: "adds é".into(), file: None, message: "m".into() };
    let reason = Reason { code: "below_threshold".into(), message: "1 of 2 changed lines is covered".into() };
    Evidence {
        verdict: Verdict::Failed,
        definition: Some(Definition {
            source: Source::Base,
            file: "nofx.toml".into(),
            digest: "d".repeat(64),
            command: vec!["npm".into(), "test".into()],
            reports: Vec::new(),
            thresholds: [("coverage".to_owned(), json!(0.9))].into(),
            severity: Severity::Error,
        }),
        subject: Some(Subject { tree: tree("1"), archive: Some("a".repeat(64)) }),
        base: Base {
            tree: Some(tree("2")),
            archive: None,
            given_by: GivenBy::Plan,
            origin: Some(BaseOrigin {
                repository: "https://git.test/acme/site".into(),
                commit: "3".repeat(40),
                branch: Some("main".into()),
                tip: Some("3".repeat(40)),
                relation: Some("tip".into()),
                run_id: "r".into(),
                step_id: "s".into(),
            }),
        },
        locks: [("package-lock.json".to_owned(), "c".repeat(64))].into(),
        tests: Some(Tests { total: 1, failed: 1, failures: Listed::of([failure]), ..Tests::default() }),
        ..Evidence::new("unit", reason, 1)
    }
}

async fn signed(signer: &Signer, evidence: &Evidence) -> Result<Envelope, Error> {
    let sha256 = evidence.encode().unwrap().sha256;
    attestation::sign(attestation::statement(evidence, &sha256).unwrap().payload().unwrap(), signer).await
}

#[tokio::test]
async fn securesystemslib_and_in_toto_accept_an_attestation_and_notice_every_change() {
    // A key that another program made.
    let key = PrivateKey::from_pem(&oracle(&["key"], &Value::Null).await).unwrap();
    let public = key.public().clone();
    let signer = Signer::with_key(key);
    let said = checked(&signed(&signer, &evidence()).await.unwrap(), &public).await;
    let tree = |digit: &str| [json!({"gitTree": digit.repeat(40)}), json!({"gitTree": digit.repeat(64)})];
    let mut subjects = vec![json!({"sha256": "a".repeat(64)})];
    subjects.extend(tree("1"));
    assert_eq!(
        said,
        json!({
            "keyid": public.keyid(),
            "predicate_type": attestation::PREDICATE_TYPE,
            "subjects": subjects,
            "result": "FAILED",
            "configuration": [
                "nofx.toml", "base tree", "base tree (sha256)", "base commit", "package-lock.json", "evidence",
            ],
            "passed": [],
            "warned": [],
            "failed": ["gate:unit", "sum > adds é"],
            "unnoticed": [],
        })
    );

    let passed = Evidence { verdict: Verdict::Passed, tests: None, ..evidence() };
    let said = checked(&signed(&signer, &passed).await.unwrap(), &public).await;
    assert_eq!((&said["result"], &said["passed"]), (&json!("PASSED"), &json!(["gate:unit"])));
}

/// What a run left that made a text from a file.
fn content() -> Value {
    let artifact = |id: &str, is_own: bool, name: &str| {
        json!({
            "id": id, "is_own": is_own, "step": if is_own { "write" } else { "" }, "attempt": 1, "name": name, "type": "text",
            "hash": id.repeat(64), "media_type": "text/plain", "builder": "codegen@0.1.0", "inputs_sha256": "e".repeat(64),
            "metadata": {"model_served": "m-1", "model_requested": "m"}, "created_at": "2026-11-30T10:00:02.123456+00:00",
        })
    };
    let mut content = json!({
        "run": {"id": "r", "tenant": "acme", "generation": 1, "status": "succeeded", "plan_digest": "d".repeat(64), "events": 0},
        "plan": {"goal": "é", "steps": []},
        "artifacts": [artifact("a", false, "site.tar.gz"), artifact("b", true, "é.md"), artifact("c", true, "log")],
        "edges": [{"from": "a", "to": "b"}],
        "steps": [{"id": "s", "name": "write", "tool": "codegen", "handler": "codegen", "refs": []}],
        "attempts": [{"step": "write", "attempt": 1, "started_at": "2026-11-30T10:00:01.5+00:00"}],
    });
    for section in proof::SECTIONS {
        if content[section].is_null() {
            content[section] = json!([]);
        }
    }
    content
}

#[tokio::test]
async fn securesystemslib_and_in_toto_accept_seals_and_provenance() {
    let key = PrivateKey::from_pem(&oracle(&["key"], &Value::Null).await).unwrap();
    let public = key.public().clone();
    let signer = Signer::with_key(key);
    let content = content();
    let checked = async |statement: &Value| -> Value {
        let envelope = dsse::seal(statement, &signer).await.unwrap().to_string();
        let said = oracle(&["statement"], &json!({"pem": public.to_pem(), "envelope": envelope})).await;
        serde_json::from_str(&said).expect("JSON")
    };
    let said = checked(&Index::of(&content).statement(&content["artifacts"][1])).await;
    assert_eq!(
        said,
        json!({
            "keyid": public.keyid(), "predicate_type": "https://slsa.dev/provenance/v1", "unnoticed": [],
            "subjects": [{"sha256": "b".repeat(64)}], "made_from": [{"sha256": "a".repeat(64)}], "byproducts": ["log"],
            "builder": "https://nofx.dev/functions/codegen@0.1.0", "invocation": "r/s/1", "started": "2026-11-30T10:00:01.500Z",
        })
    );
    let said = checked(&proof::seal_statement(&content, "2026-11-30T10:00:03Z").unwrap()).await;
    assert_eq!((&said["predicate_type"], &said["unnoticed"]), (&json!(proof::SEAL_TYPE), &json!([])));
    assert_eq!(said["subjects"].as_array().map(Vec::len), Some(3));
}

async fn kms() -> aws_sdk_kms::Client {
    aws_sdk_kms::Client::new(&Target::Ministack.sdk().await)
}

async fn create_key(kms: &aws_sdk_kms::Client, spec: KeySpec) -> String {
    let created = kms.create_key().key_spec(spec).key_usage(KeyUsageType::SignVerify).send().await.unwrap();
    created.key_metadata.expect("a key").key_id
}

fn config(key_id: &str) -> SigningConfig {
    SigningConfig { key_id: Some(key_id.to_owned()), ..SigningConfig::default() }
}

#[tokio::test]
async fn a_key_in_kms_signs_what_others_accept() {
    let id = create_key(&kms().await, KeySpec::EccNistP256).await;
    let sdk = Target::Ministack.sdk().await;
    let earlier = PrivateKey::generate().unwrap().public().clone();
    let config = SigningConfig { public_keys: Some(earlier.to_pem()), ..config(&id) };
    let keys = public_keys(&config, &sdk).await.unwrap();
    assert_eq!((keys.len(), &keys[1]), (2, &earlier));
    let envelope = signed(&Signer::new(&config, &sdk), &evidence()).await.unwrap();
    let read = Envelope::read(&envelope.to_json().unwrap()).unwrap();
    assert!(read.verify(&keys[..1], 1).unwrap().statement().unwrap().names_archive(&"a".repeat(64)));
    assert_eq!(checked(&envelope, &keys[0]).await["keyid"], keys[0].keyid());
}

#[tokio::test]
async fn an_alias_that_moves_to_another_key_changes_the_key_id() {
    let (kms, sdk) = (kms().await, Target::Ministack.sdk().await);
    let ids = [create_key(&kms, KeySpec::EccNistP256).await, create_key(&kms, KeySpec::EccNistP256).await];
    let alias = format!("alias/t-{}", Uuid::new_v4());
    kms.create_alias().alias_name(&alias).target_key_id(&ids[0]).send().await.unwrap();
    // One signer, which keeps the public key between signatures.
    let signer = Signer::new(&config(&alias), &sdk);
    for (turn, id) in ids.iter().enumerate() {
        if turn > 0 {
            kms.update_alias().alias_name(&alias).target_key_id(id).send().await.unwrap();
        }
        let keys = public_keys(&config(id), &sdk).await.unwrap();
        for _ in 0..2 {
            let envelope = signed(&signer, &evidence()).await.unwrap();
            assert_eq!(envelope.keyids(), [keys[0].keyid()]);
            assert!(envelope.verify(&keys, 1).is_ok());
        }
    }
}

#[tokio::test]
async fn without_a_fitting_key_in_kms_nothing_is_signed() {
    let (kms, sdk) = (kms().await, Target::Ministack.sdk().await);
    for id in [Uuid::new_v4().to_string(), create_key(&kms, KeySpec::EccNistP384).await] {
        let refused = signed(&Signer::new(&config(&id), &sdk), &evidence()).await;
        let Err(refused @ Error::Invalid(_)) = refused else { panic!("{id}: {refused:?}") };
        assert!(refused.to_string().contains("KMS refuses the key"), "{refused}");
        let listed = public_keys(&config(&id), &sdk).await;
        assert!(matches!(listed, Err(Error::Internal { .. })), "{id}: {listed:?}");
    }
    // Nobody answers: a retry may succeed.
    let nowhere = lab::sdk_at("http://127.0.0.1:9", "us-east-1", ("test", "test")).await;
    let refused = signed(&Signer::new(&config("k"), &nowhere), &evidence()).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
}
