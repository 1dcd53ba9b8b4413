//! What people decided about the gates of a proof.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;
use shared::domain::gate::GATE_CHANGE;
use shared::domain::timestamp::Timestamp;
use shared::view::{Gate, KeyPurpose};

use super::content::{items, text};
use super::gates::planned;
use super::report::Report;
use super::{Options, fault};
use crate::commands::verify_decision::{self, Asked, Bond, Signed};

/// Gates of this type ask for money, which a higher limit also grants.
const BUDGET: &str = "budget";
/// A decision is signed and recorded in one request. So much may the clocks of function and database differ.
const CLOCKS_MS: i64 = 15 * 60 * 1_000;

/// Verifies that as many people decided a gate as its rule requires. False if that is not proved.
pub fn decided(content: &Value, gate: &Value, options: &Options, report: &mut Report) -> bool {
    let (id, name) = (text(&gate["id"]), text(&gate["gate_type"]));
    let keys = options.keys.keys(KeyPurpose::Decisions);
    let signed = items(content, "decisions").iter().filter(|decision| decision["envelope"].is_object());
    let own: Vec<Value> =
        signed.clone().filter(|decision| decision["gate"] == gate["id"]).map(|one| one["envelope"].clone()).collect();
    if name == BUDGET && own.is_empty() {
        report.doubt_at(
            "budget_without_decision",
            "A budget gate passed without a decision: money came free, a limit was raised, or a new day began.",
            Some(name),
        );
        return false;
    }
    let view: Result<Gate, _> = serde_json::from_value(gate.clone());
    let Ok(mut view) = view else {
        report.faults.push(fault("content.gates", format!("the gate {id} cannot be read")));
        return false;
    };
    if name == GATE_CHANGE {
        // Decisions about a change count for every gate of the run that asks about it.
        let asked = Asked::at(&view);
        let tied = signed.filter(|decision| {
            let read = verify_decision::verify(decision["envelope"].to_string().as_bytes(), &keys);
            read.is_ok_and(|read| asked.bond(&read).is_some())
        });
        view.attestations = tied.map(|decision| decision["envelope"].clone()).collect();
    } else {
        view.attestations = own;
    }
    if gate["status"] == "waived" {
        report.doubt_at("waived", "A person waived a gate: nothing shows that what it asked for is so.", Some(name));
    }
    match verify_decision::of_gate(&view, &keys, true) {
        Ok(decided) if decided.passes => {
            let people: BTreeSet<&str> = decided.decisions.iter().map(|one| one.subject.as_str()).collect();
            let step = planned(content, &gate["step_id"]).unwrap_or(&Value::Null);
            // A manual step has it in its inputs.
            let planned = [&step["approval"]["required"], &step["inputs"]["approval"]["required"]];
            let planned = planned.into_iter().filter_map(Value::as_u64).max().unwrap_or_default();
            let is_enough = gate["status"] == "waived" || people.len() as u64 >= planned;
            if !is_enough {
                report.missing.push(format!(
                    "the gate {id} ({name}): the plan requires {planned} people, and {} signed",
                    people.len()
                ));
            }
            is_enough
        }
        Ok(_) => {
            report.missing.push(format!("the gate {id} ({name}) does not pass by its decisions"));
            false
        }
        Err(error) => {
            report.missing.push(format!("the gate {id} ({name}): {error}"));
            false
        }
    }
}

/// Every signed decision of the run verifies and fits the run, also one that did not count in the end.
pub fn check(content: &Value, options: &Options, report: &mut Report) {
    let keys = options.keys.keys(KeyPurpose::Decisions);
    let decisions = items(content, "decisions");
    let (mut people, mut signed) = (BTreeSet::new(), Vec::new());
    for (at, decision) in decisions.iter().enumerate() {
        let path = format!("content.decisions[{at}]");
        if !decision["envelope"].is_object() {
            report.doubt("decision_unsigned", "A decision has no signature: it was made by an earlier release.");
            continue;
        }
        match verify_decision::verify(decision["envelope"].to_string().as_bytes(), &keys) {
            Ok(one) => {
                for message in differences(content, decision, &one) {
                    report.faults.push(fault(path.clone(), message));
                }
                if !one.statement.predicate["covers"].is_object() {
                    let message = "The statement about a decision does not say what it covers.";
                    report.doubt("decision_covers_nothing", message);
                }
                people.insert(one.subject.clone());
                signed.push((decision, one));
            }
            Err(error) => report.faults.push(fault(format!("{path}.envelope"), error.to_string())),
        }
    }
    names(content, &signed, report);
    if !decisions.is_empty() {
        report.check("decisions", format!("{} signed, of {} people", signed.len(), people.len()));
        report.doubt("people_as_identified", "Who the people are is what the control plane knew of their logins.");
    }
}

/// What a signed decision says otherwise than the proof that contains it.
fn differences(content: &Value, decision: &Value, signed: &Signed) -> Vec<String> {
    let mut found = Vec::new();
    let mut require = |holds: bool, what: &str| {
        if !holds {
            found.push(format!("its statement says something else: {what}"));
        }
    };
    let predicate = &signed.statement.predicate;
    let gate = items(content, "gates").iter().find(|gate| gate["id"] == decision["gate"]);
    let view = gate.and_then(|gate| serde_json::from_value::<Gate>(gate.clone()).ok());
    let bond = view.and_then(|view| Asked::at(&view).bond(signed));
    require(bond.is_some() && content["run"]["id"] == predicate["run"], "the gate");
    // A shared decision was made at another gate, about the same change.
    let is_same = bond != Some(Bond::Own) || decision["digest"].as_str() == signed.digest.as_deref();
    require(is_same, "the digest");
    require(decision["subject"] == signed.subject.as_str() && decision["actor"] == predicate["actor"], "the person");
    require(decision["decision"] == predicate["decision"], "the decision");
    require(is_at(text(&decision["at"]), text(&predicate["signed_at"])), "the time");
    let covers = &predicate["covers"];
    if covers.is_object() {
        require(covers["plan"] == content["run"]["plan_digest"], "the plan");
        require(is_workspace(&content["run"]["workspace"], &covers["workspace"]), "the workspace");
        let step = items(content, "steps").iter().find(|step| gate.is_some_and(|gate| gate["step_id"] == step["id"]));
        let step = step.map_or("", |step| text(&step["name"]));
        let at = step_of(content, predicate).unwrap_or(step);
        require(covers["step"].is_null() || text(&covers["step"]) == at, "the step");
        require(covers["evidence"].is_null() || is_made(content, at, None, text(&covers["evidence"])), "the evidence");
        require(are_upstream(content, &covers["upstream"]), "the artifacts before it");
    }
    found
}

/// The step of the gate at which a decision was made.
fn step_of<'a>(content: &'a Value, predicate: &Value) -> Option<&'a str> {
    let step = items(content, "steps").iter().find(|step| step["id"] == predicate["step"])?;
    Some(text(&step["name"]))
}

fn is_at(recorded: &str, signed: &str) -> bool {
    let ms = |text: &str| Timestamp(text.to_owned()).epoch_ms();
    matches!((ms(recorded), ms(signed)), (Some(one), Some(other)) if (one - other).abs() <= CLOCKS_MS)
}

/// Whether a decision covers the archives of the run's workspace.
fn is_workspace(workspace: &Value, covered: &Value) -> bool {
    let none = serde_json::Map::new();
    let (archives, covered) = (workspace.as_object().unwrap_or(&none), covered.as_object().unwrap_or(&none));
    archives.len() == covered.len() && archives.iter().all(|(role, one)| covered.get(role) == Some(&one["hash"]))
}

/// Whether a step made an artifact with this digest, under this name if one is given.
fn is_made(content: &Value, step: &str, name: Option<&str>, sha256: &str) -> bool {
    items(content, "artifacts").iter().any(|artifact| {
        artifact["hash"] == sha256 && artifact["step"] == step && name.is_none_or(|name| artifact["name"] == name)
    })
}

/// Whether the steps made what a decision covers of them. Of very many steps or artifacts it has one digest, which only the
/// database can compare.
fn are_upstream(content: &Value, covered: &Value) -> bool {
    let is_list = |value: &&Value| !value["count"].is_number();
    let steps = Some(covered).filter(is_list).and_then(Value::as_object).into_iter().flatten();
    let mut artifacts = steps.flat_map(|(step, one)| {
        let artifacts = Some(&one["artifacts"]).filter(is_list).and_then(Value::as_object);
        artifacts.into_iter().flatten().map(move |(name, hashes)| (step, name, hashes))
    });
    artifacts.all(|(step, name, hashes)| {
        text(hashes).split(' ').all(|sha256| is_made(content, step, Some(name.as_str()), sha256))
    })
}

/// Whether the names of who approved a gate are those of people who signed.
fn names(content: &Value, signed: &[(&Value, Signed)], report: &mut Report) {
    for (at, gate) in items(content, "gates").iter().enumerate() {
        let own: Vec<&Value> = signed
            .iter()
            .filter(|(decision, _)| decision["gate"] == gate["id"])
            .map(|(decision, _)| *decision)
            .collect();
        let (Some(names), false) = (gate["approved_by"].as_str(), own.is_empty()) else { continue };
        if !are_of(names, &own) {
            let message = "it names other people than those who signed";
            report.faults.push(fault(format!("content.gates[{at}].approved_by"), message));
        }
    }
}

/// Whether names are those of the decision that ended a gate, after those of earlier ones that counted with it.
fn are_of(names: &str, decisions: &[&Value]) -> bool {
    let Some((last, earlier)) = decisions.split_last() else { return false };
    let Some(mut left) = names.strip_suffix(text(&last["actor"])) else { return false };
    for one in earlier {
        let name = format!("{}, ", text(&one["actor"]));
        left = left.strip_prefix(name.as_str()).unwrap_or(left);
    }
    left.is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_those_of_the_decisions_in_their_order() {
        let of = |name: &str| json!({ "actor": name });
        let (ann, ben, both) = (of("ann"), of("ben"), of("ann, ben"));
        assert!(are_of("ann", &[&ann]) && are_of("ann, ben", &[&ann, &ben]) && are_of("ann, ben", &[&both]));
        assert!(are_of("ben", &[&ann, &ben]), "an earlier approval was about other bytes");
        for (names, decisions) in [
            ("mallory", vec![&ann]),
            ("ben, ann", vec![&ann, &ben]),
            ("mallory, ben", vec![&ann, &ben]),
            ("", vec![&ann]),
        ] {
            assert!(!are_of(names, &decisions), "{names}");
        }
    }

    #[test]
    fn a_time_is_that_of_the_signature_within_what_clocks_differ() {
        let signed = "2026-11-30T10:00:00Z";
        assert!(is_at("2026-11-30T10:00:01.123456+00:00", signed) && is_at("2026-11-30T09:50:00+00:00", signed));
        assert!(!is_at("2026-11-30T10:20:00+00:00", signed) && !is_at("", signed) && !is_at(signed, ""));
    }
}
