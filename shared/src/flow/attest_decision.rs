//! The signed statement about a decision: what was decided, by whom, by which rule, and about which bytes.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use serde_json::{Value, json};

use crate::context::Ctx;
use crate::db::gate::GateDecision;
use crate::domain::digest::sha256_hex;
use crate::domain::principal::Principal;
use crate::error::Error;
use crate::signing::dsse;
use crate::view::Gate;

/// The type of the predicate.
pub const PREDICATE_TYPE: &str = "https://nofx.dev/attestation/decision/v1";

/// Signs a decision about a gate as it was read. Returns the envelope, or [`Error::SigningUnavailable`]. In that case the
/// caller must decide nothing.
pub async fn attest(ctx: &Ctx, gate: &Gate, who: &Principal, decision: &GateDecision<'_>) -> Result<Value, Error> {
    let now = DateTime::from(SystemTime::now()).fmt(DateTimeFormat::DateTime);
    let now = now.map_err(|error| Error::internal("write the time of a decision", error))?;
    let signed = dsse::seal(&statement(gate, who, decision, &now), &ctx.decisions).await;
    signed.map_err(|error| Error::SigningUnavailable { source: Box::new(error) })
}

fn statement(gate: &Gate, who: &Principal, decision: &GateDecision<'_>, now: &str) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects(gate),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "decision": decision.decision,
            "gate": { "id": gate.id, "type": gate.gate_type, "on_pass": gate.on_pass, "generation": gate.generation },
            "run": gate.run_id,
            "step": gate.step_id,
            "digest": gate.digest,
            "covers": gate.covers,
            "rule": gate.standing.rule,
            "person": { "tenant": who.tenant, "subject": who.subject, "name": who.name },
            "actor": decision.actor_of(who),
            "reason": decision.reason,
            "signed_at": now,
        },
    })
}

/// What the decision is about: its digest, and those of the files that it covers.
fn subjects(gate: &Gate) -> Vec<Value> {
    let subject = |name: &str, sha256: &str| json!({ "name": name, "digest": { "sha256": sha256 } });
    let digest = gate.digest.clone().unwrap_or_else(|| sha256_hex(gate.id.to_string().as_bytes()));
    let mut files = BTreeMap::new();
    let covers = gate.covers.as_ref().unwrap_or(&Value::Null);
    for (role, hash) in covers["workspace"].as_object().into_iter().flatten() {
        files.insert(format!("workspace {role}"), hash.as_str().unwrap_or_default());
    }
    for (step, upstream) in covers["upstream"].as_object().into_iter().flatten() {
        // Of very many files, `covers` has only the number and one digest of the list.
        let listed =
            upstream["artifacts"].as_object().filter(|files| !files.get("count").is_some_and(Value::is_number));
        for (name, hashes) in listed.into_iter().flatten() {
            for (at, hash) in hashes.as_str().unwrap_or_default().split(' ').enumerate() {
                let number = if at == 0 { String::new() } else { format!(" ({})", at + 1) };
                files.insert(format!("{step}/{name}{number}"), hash);
            }
        }
    }
    if let Some(hash) = covers["evidence"].as_str() {
        files.insert("evidence".to_owned(), hash);
    }
    let files = files.iter().filter(|(_, hash)| hash.len() == digest.len());
    std::iter::once(subject("decision", &digest)).chain(files.map(|(name, hash)| subject(name, hash))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::gate::Decision;

    #[test]
    fn a_statement_names_the_person_the_rule_and_every_file() {
        let (id, at) = ("0193c0de-0000-7000-8000-000000000001", "2026-11-23T10:00:00+00:00");
        let hash = |digit: &str| digit.repeat(64);
        let gate: Gate = serde_json::from_value(json!({
            "id": id, "run_id": id, "gate_type": "approval:echo", "status": "pending", "on_pass": "resume", "generation": 1,
            "created_at": at, "digest": hash("a"), "required": 2,
            "rule": {"required": 2, "roles": ["approver"], "people": null, "self": false, "owners": "excluded", "waive": "admins",
                     "max_session_age_s": null},
            "covers": {
                "v": 1, "workspace": {"archive": hash("b")}, "evidence": hash("c"),
                "upstream": {"build": {"outputs": hash("d"), "artifacts": {"a.tar": format!("{} {}", hash("e"), hash("f"))}},
                             "many": {"outputs": hash("d"), "artifacts": {"count": 300, "digest": hash("d")}}}},
        }))
        .unwrap();
        let who: Principal = serde_json::from_value(json!({
            "tenant": "acme", "subject": "u-1", "name": "ann", "kind": "person", "role": "approver", "token_id": null,
            "owner": "u-1", "solo": false,
        }))
        .unwrap();
        let decision = GateDecision {
            gate_id: gate.id,
            decision: Decision::Approve,
            actor: "mallory",
            reason: Some("so"),
            seen: None,
        };
        let made = statement(&gate, &who, &decision, "2026-11-23T11:00:00Z");
        let names: Vec<_> =
            made["subject"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["decision", "build/a.tar", "build/a.tar (2)", "evidence", "workspace archive"]);
        let predicate = &made["predicate"];
        assert_eq!((&predicate["person"]["subject"], &predicate["actor"]), (&json!("u-1"), &json!("ann")));
        assert_eq!((&predicate["decision"], &predicate["digest"]), (&json!("approve"), &json!(hash("a"))));
        // A verifier counts the people against what was signed.
        assert_eq!(predicate["rule"]["required"], json!(2));
    }
}
