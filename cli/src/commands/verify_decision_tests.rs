use serde_json::json;
use shared::signing::{PrivateKey, Signer, dsse};

use super::*;

const ID: &str = "0193c0de-0000-7000-8000-000000000001";
const OTHER: &str = "0193c0de-0000-7000-8000-000000000002";

/// An envelope with this predicate.
async fn sealed(key: &PrivateKey, predicate: &Value) -> Value {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1", "predicateType": PREDICATE_TYPE, "predicate": predicate,
        "subject": [{"name": "decision", "digest": {"sha256": "d"}}],
    });
    let signer = Signer::with_key(PrivateKey::from_pem(&key.to_pem().unwrap()).unwrap());
    dsse::seal(&statement, &signer).await.unwrap()
}

async fn signed(key: &PrivateKey, gate: &str, decision: &str, subject: &str, digest: &str) -> Value {
    let predicate = json!({
        "decision": decision, "gate": {"id": gate, "type": "manual:go"}, "run": ID, "digest": digest,
        "person": {"name": subject, "subject": subject},
    });
    sealed(key, &predicate).await
}

fn gate(status: &str, attestations: &[Value]) -> Gate {
    let at = "2026-11-23T10:00:00+00:00";
    serde_json::from_value(json!({
        "id": ID, "run_id": ID, "gate_type": "manual:go", "status": status, "on_pass": "finish", "generation": 1,
        "created_at": at, "digest": "d1", "required": 2, "attestations": attestations,
    }))
    .unwrap()
}

#[tokio::test]
async fn a_gate_holds_only_with_enough_people_who_signed_what_it_asked_in_the_end() {
    let (ours, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let keys = [ours.public().clone()];
    let ann = signed(&ours, ID, "approve", "ann", "d1").await;
    let ben = signed(&ours, ID, "approve", "ben", "d1").await;
    let people = |attestations: &[Value]| {
        of_gate(&gate("passed", attestations), &keys, true).map(|decided| decided.decisions.len())
    };
    assert_eq!(people(&[ann.clone(), ben.clone()]).unwrap(), 2);
    let wrong = [
        ("one person twice", vec![ann.clone(), ann.clone()]),
        ("other bytes", vec![ann.clone(), signed(&ours, ID, "approve", "ben", "d0").await]),
        ("another decision", vec![ann.clone(), signed(&ours, ID, "waive", "ben", "d1").await]),
        ("another key", vec![ann.clone(), signed(&other, ID, "approve", "ben", "d1").await]),
        ("another gate", vec![ann.clone(), signed(&ours, OTHER, "approve", "ben", "d1").await]),
    ];
    for (what, attestations) in wrong {
        assert!(people(&attestations).is_err(), "{what}");
    }
    let vetoed = gate("failed", &[ann, signed(&ours, ID, "reject", "ben", "d1").await]);
    let vetoed = of_gate(&vetoed, &keys, true).unwrap();
    assert_eq!((vetoed.decisions[0].decision, vetoed.passes), (Decision::Reject, false));
    assert!(of_gate(&gate("pending", &[ben]), &keys, true).is_err());
}

/// The predicate of a decision about changed checks, made at another gate than [`ID`].
fn about_change(decision: &str, who: &str) -> Value {
    json!({
        "decision": decision, "gate": {"id": OTHER, "type": GATE_CHANGE, "generation": 1}, "run": ID, "digest": "of the other gate",
        "covers": {"v": 1, "subject": {"tree": "t"}}, "rule": {"required": 1}, "person": {"name": who, "subject": who},
    })
}

/// The gate [`ID`], which asks about the same change. What decisions cover has no nulls.
fn asks_too(status: &str, attestation: &Value) -> Gate {
    let subject = json!({"base": null, "tree": "t"});
    Gate {
        gate_type: GATE_CHANGE.to_owned(),
        subject: subject.as_object().cloned(),
        ..gate(status, std::slice::from_ref(attestation))
    }
}

#[tokio::test]
async fn a_decision_about_changed_checks_counts_for_each_gate_of_the_run_that_asks_about_the_same_change() {
    let key = PrivateKey::generate().unwrap();
    let keys = [key.public().clone()];
    for (decision, status) in [("approve", "passed"), ("waive", "waived")] {
        let one = sealed(&key, &about_change(decision, "ann")).await;
        let decided = of_gate(&asks_too(status, &one), &keys, true).unwrap();
        assert!(decided.passes && decided.decisions.len() == 1);
        let text = anstream::adapter::strip_str(&decided.text(&[])).to_string();
        assert!(text.contains(&format!("made at the gate {OTHER}")) && text.contains("PASSED"), "{text}");
        // A later generation of the run has the same subject.
        let later = Gate { generation: 2, ..asks_too(status, &one) };
        assert!(of_gate(&later, &keys, true).unwrap().passes);
    }
}

#[tokio::test]
async fn nothing_else_is_shared() {
    let key = PrivateKey::generate().unwrap();
    let keys = [key.public().clone()];
    let change = |pointer: &str, value: Value| {
        let mut predicate = about_change("approve", "ann");
        *predicate.pointer_mut(pointer).unwrap() = value;
        predicate
    };
    for (what, predicate) in [
        ("another run", change("/run", json!(OTHER))),
        ("another change", change("/covers/subject/tree", json!("u"))),
        ("no subject", change("/covers", json!({"v": 1}))),
        ("an empty subject", change("/covers/subject", json!(null))),
        ("another type of gate", change("/gate/type", json!("manual:go"))),
    ] {
        let one = sealed(&key, &predicate).await;
        let error = of_gate(&asks_too("passed", &one), &keys, true).unwrap_err().to_string();
        assert!(error.contains("about another gate"), "{what}: {error}");
    }
    let one = sealed(&key, &about_change("reject", "ann")).await;
    assert!(of_gate(&asks_too("failed", &one), &keys, true).is_err(), "a rejection is never shared");
    let without = sealed(&key, &change("/covers", json!({"v": 1}))).await;
    let without = Gate { subject: None, ..asks_too("passed", &without) };
    assert!(of_gate(&without, &keys, true).is_err(), "two gates without a subject do not ask the same");
    let one = sealed(&key, &about_change("approve", "ann")).await;
    let another = Gate { gate_type: "manual:go".to_owned(), ..asks_too("passed", &one) };
    assert!(of_gate(&another, &keys, true).is_err(), "only questions about changed checks share decisions");
}
