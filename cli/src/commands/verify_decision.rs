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
