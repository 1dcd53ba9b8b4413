//! Checks the signed decisions of people about a gate.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Result, anyhow, bail, ensure};
use nofx_gates::attestation::{Envelope, Statement};
use nofx_local::report::printable;
use serde::Serialize;
use serde_json::Value;
use shared::domain::GateStatus;
use shared::domain::gate::{Decision, GATE_CHANGE};
use shared::flow::attest_decision::PREDICATE_TYPE;
use shared::signing::PublicKey;
use shared::view::Gate;

use crate::output::color::{BAD, BOLD, DIM, GOOD, paint};

/// A signed decision.
#[derive(Debug, Serialize)]
pub struct Signed {
    pub keyids: Vec<String>,
    pub decision: Decision,
    /// The name and the subject of the person.
    pub name: String,
    pub subject: String,
    /// The digest of what was decided about.
    pub digest: Option<String>,
    pub statement: Statement,
}

/// Whether a statement is about a decision.
pub fn is_decision(statement: &Statement) -> bool {
    statement.predicate_type == PREDICATE_TYPE
}

/// Reads a decision of an envelope that one of the keys signed.
pub fn verify(envelope: &[u8], keys: &[PublicKey]) -> Result<Signed> {
    let not_verified = |error| anyhow!("not verified: {error}");
    let verified = Envelope::read(envelope).and_then(|envelope| envelope.verify(keys, 1)).map_err(not_verified)?;
    let statement = verified.statement().map_err(not_verified)?;
    ensure!(is_decision(&statement), "not verified: {:?} is no decision", statement.predicate_type);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let predicate = &statement.predicate;
    let decision = serde_json::from_value(predicate["decision"].clone());
    let (name, subject) = (text(&predicate["person"]["name"]), text(&predicate["person"]["subject"]));
    let (Ok(decision), Some(name), Some(subject)) = (decision, name, subject) else {
        bail!("not verified: the statement names no decision or no person");
    };
    let digest = text(&predicate["digest"]);
    Ok(Signed { keyids: verified.keyids.into_iter().collect(), decision, name, subject, digest, statement })
}

/// Verifies the decisions that ended a gate: as many as its rule requires, by different people, each about what the gate
/// asked in the end.
pub fn of_gate(gate: &Gate, keys: &[PublicKey]) -> Result<Vec<Signed>> {
    let wanted = match gate.status {
        GateStatus::Passed => Decision::Approve,
        GateStatus::Waived => Decision::Waive,
        GateStatus::Failed => Decision::Reject,
        other => bail!("nobody has decided the gate {}: it is {other}", gate.id),
    };
    let mut signed = Vec::new();
    for envelope in &gate.attestations {
        let one = verify(envelope.to_string().as_bytes(), keys)?;
        ensure!(is_about(&one, gate), "not verified: a statement is about another gate than {}", gate.id);
        if one.decision == wanted && one.digest == gate.digest {
            signed.push(one);
        }
    }
    let people: BTreeSet<&str> = signed.iter().map(|one| one.subject.as_str()).collect();
    let needed = if wanted == Decision::Approve { gate.standing.required.unwrap_or(1) as usize } else { 1 };
    ensure!(
        people.len() >= needed,
        "not verified: {} of {needed} decisions that the gate needed are signed",
        people.len()
    );
    Ok(signed)
}

/// A decision about changed checks counts for every gate of the run that asks about the same change.
fn is_about(signed: &Signed, gate: &Gate) -> bool {
    let predicate = &signed.statement.predicate;
    let is_same = predicate["gate"]["id"] == gate.id.to_string();
    let subject = gate.subject.clone().map(Value::Object);
    let is_shared = gate.gate_type == GATE_CHANGE
        && predicate["run"] == gate.run_id.to_string()
        && subject.as_ref() == predicate["covers"].get("subject");
    is_same || is_shared
}

pub fn text(decisions: &[Signed], keys_are_kept: bool) -> String {
    let mut text = String::new();
    let whose = if keys_are_kept { "a key that you trust" } else { "a key of the API" };
    for one in decisions {
        let _ = writeln!(text, "{} {:<10} {whose}, {}", paint(GOOD, "✓"), "signature", one.keyids.join(", "));
        let who = format!("{} ({})", printable(&one.name), printable(&one.subject));
        let _ = writeln!(text, "{} {:<10} {who}", paint(DIM, "·"), one.decision.participle());
        let covers = one.digest.as_deref().map(printable).unwrap_or_default();
        let _ = writeln!(text, "{} {:<10} {covers}", paint(DIM, "·"), "digest");
    }
    let rejected = decisions.iter().any(|one| one.decision == Decision::Reject);
    let (style, word) = if rejected { (BAD, "REJECTED") } else { (GOOD, "PASSED") };
    let _ = writeln!(text, "{} {}", paint(BOLD, "verified: by decision the gate is"), paint(style.bold(), word));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::signing::{PrivateKey, Signer, dsse};

    use super::*;

    const ID: &str = "0193c0de-0000-7000-8000-000000000001";

    async fn signed(key: &PrivateKey, gate: &str, decision: &str, subject: &str, digest: &str) -> Value {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": PREDICATE_TYPE,
            "subject": [{"name": "decision", "digest": {"sha256": digest}}],
            "predicate": {"decision": decision, "gate": {"id": gate}, "run": ID, "digest": digest,
                          "person": {"name": subject, "subject": subject}},
        });
        let signer = Signer::with_key(PrivateKey::from_pem(&key.to_pem().unwrap()).unwrap());
        dsse::seal(&statement, &signer).await.unwrap()
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
        let people = |attestations: &[Value]| of_gate(&gate("passed", attestations), &keys).map(|signed| signed.len());
        assert_eq!(people(&[ann.clone(), ben.clone()]).unwrap(), 2);
        let wrong = [
            ("one person twice", vec![ann.clone(), ann.clone()]),
            ("other bytes", vec![ann.clone(), signed(&ours, ID, "approve", "ben", "d0").await]),
            ("another decision", vec![ann.clone(), signed(&ours, ID, "waive", "ben", "d1").await]),
            ("another key", vec![ann.clone(), signed(&other, ID, "approve", "ben", "d1").await]),
            ("another gate", vec![ann.clone(), signed(&ours, &ID.replace('1', "2"), "approve", "ben", "d1").await]),
        ];
        for (what, attestations) in wrong {
            assert!(people(&attestations).is_err(), "{what}");
        }
        let vetoed = gate("failed", &[ann, signed(&ours, ID, "reject", "ben", "d1").await]);
        assert_eq!(of_gate(&vetoed, &keys).unwrap()[0].decision, Decision::Reject);
        assert!(of_gate(&gate("pending", &[ben]), &keys).is_err());
    }
}
