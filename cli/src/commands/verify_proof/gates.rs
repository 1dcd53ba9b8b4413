//! Gates of a proof: those that evidence decided, and those that people did.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result};
use nofx_gates::attestation::{Envelope, Statement};
use nofx_gates::evidence::Evidence;
use nofx_gates::snapshot::{Snapshot, TreeDigest};
use nofx_gates::{Limits, unpack};
use serde_json::Value;
use shared::domain::gate::{APPROVAL, GATE_CHANGE, ON_EVIDENCE};
use shared::domain::provenance::Index;
use shared::signing::PublicKey;
use shared::view::{Gate, KeyPurpose};

use super::content::{items, text};
use super::report::Report;
use super::{Options, fault};
use crate::client::workspace;
use crate::commands::verify::is_about;
use crate::commands::verify_decision::{self, Asked};

/// Gates of this type ask for money, which a higher limit also grants.
const BUDGET: &str = "budget";

/// A gate that evidence decided.
struct Judged<'a> {
    name: &'a str,
    statement: Statement,
    /// Whether it judged an artifact that the step took.
    is_artifact: bool,
    /// The evidence, if it is in the proof.
    evidence: Option<Evidence>,
}

pub fn check(content: &Value, index: &Index<'_>, options: &Options, report: &mut Report) -> Result<()> {
    let documents: HashMap<&str, &str> = items(content, "documents")
        .iter()
        .filter_map(|document| Some((document["artifact"].as_str()?, document["text"].as_str()?)))
        .collect();
    let keys = options.keys.keys(KeyPurpose::Evidence);
    let (mut judged, mut decided) = (Vec::new(), 0);
    for (at, gate) in items(content, "gates").iter().enumerate() {
        let has_passed = matches!(text(&gate["status"]), "passed" | "waived") && gate["voided_at"].is_null();
        if !has_passed {
            continue;
        }
        if gate["status"] == "passed" && gate["rule"].is_null() && text(&gate["gate_type"]).starts_with(ON_EVIDENCE) {
            match by_evidence(gate, index, &documents, &keys) {
                Ok(one) => judged.push(one),
                Err(message) => report.faults.push(fault(format!("content.gates[{at}]"), message)),
            }
        } else {
            decided += u64::from(by_people(content, gate, options, report));
        }
    }
    signatures(content, options, report);
    report.check("gates", format!("{} passed by evidence, {decided} by decisions of people", judged.len()));
    steps(content, report);
    for one in &judged {
        doubts(one, report);
    }
    workspaces(content, index, &judged, report);
    repo(&judged, options, report)
}

/// Verifies the attestation of a gate, and that it is about what its step took.
fn by_evidence<'a>(
    gate: &'a Value,
    index: &Index<'a>,
    documents: &HashMap<&str, &str>,
    keys: &[PublicKey],
) -> Result<Judged<'a>, String> {
    let evidence = index.artifact(text(&gate["evidence_id"])).ok_or("it has no evidence")?;
    let (step, attempt) = (text(&evidence["step"]), evidence["attempt"].as_u64().unwrap_or_default());
    if index.step(step).is_none_or(|step| step["id"] != gate["step_id"]) {
        return Err("its evidence is that of another step".to_owned());
    }
    let of_attempt = index.made(step, attempt).iter();
    let attestation = of_attempt.clone().find(|artifact| artifact["type"] == "gate_attestation");
    let attestation = attestation.ok_or("it has no attestation")?;
    let envelope = documents.get(text(&attestation["id"])).ok_or("its attestation is not included")?;
    let statement = Envelope::read(envelope.as_bytes())
        .and_then(|envelope| envelope.verify(keys, 1))
        .and_then(|verified| verified.statement())
        .map_err(|error| format!("its attestation is not verified: {error}"))?;
    let result = statement.test_result().map_err(|error| error.to_string())?;
    let status = serde_json::from_value(gate["status"].clone()).map_err(|error| error.to_string())?;
    is_about(&result, text(&gate["gate_type"]), status).map_err(|error| error.to_string())?;
    if result.evidence_sha256() != evidence["hash"].as_str() {
        return Err("its attestation is about other evidence".to_owned());
    }
    let taken = index.parents(text(&evidence["id"]));
    let names = |artifact: &&Value| statement.names_archive(text(&artifact["hash"]));
    let judged_files = statement.subject.iter().any(|subject| subject.name == "workspace");
    if judged_files && !taken.is_empty() && !taken.iter().any(names) {
        return Err("its attestation is about another tree than the one that the run carried on".to_owned());
    }
    let document = documents.get(text(&evidence["id"]));
    let read: Option<Evidence> =
        document.map(|text| serde_json::from_str(text)).transpose().map_err(|_| "its evidence cannot be read")?;
    if let Some(read) = &read {
        let ran = read.attempt.clone().unwrap_or_default();
        if ran.step_id != text(&gate["step_id"]) || u64::from(ran.number) != attempt {
            return Err("its evidence is about another attempt".to_owned());
        }
        if read.subject.as_ref().is_some_and(|subject| !statement.names_tree(&subject.tree)) {
            return Err("its evidence and its attestation name different trees".to_owned());
        }
    }
    Ok(Judged { name: text(&gate["gate_type"]), statement, is_artifact: !taken.is_empty(), evidence: read })
}

/// Verifies that as many people decided a gate as its rule requires. False if that is not proved.
fn by_people(content: &Value, gate: &Value, options: &Options, report: &mut Report) -> bool {
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

/// Every signed decision of the run verifies, also one that did not count in the end.
fn signatures(content: &Value, options: &Options, report: &mut Report) {
    let keys = options.keys.keys(KeyPurpose::Decisions);
    let decisions = items(content, "decisions");
    let mut people = BTreeSet::new();
    for (at, decision) in decisions.iter().enumerate() {
        let path = format!("content.decisions[{at}]");
        if !decision["envelope"].is_object() {
            report.doubt("decision_unsigned", "A decision has no signature: it was made by an earlier release.");
            continue;
        }
        match verify_decision::verify(decision["envelope"].to_string().as_bytes(), &keys) {
            Ok(signed) => {
                let is_same = decision["gate"] == signed.gate.as_str()
                    && decision["subject"] == signed.subject.as_str()
                    && decision["digest"].as_str() == signed.digest.as_deref()
                    && decision["decision"] == signed.statement.predicate["decision"]
                    && content["run"]["id"] == signed.statement.predicate["run"];
                if !is_same {
                    report.faults.push(fault(path, "its statement says something else"));
                }
                people.insert(signed.subject);
            }
            Err(error) => report.faults.push(fault(format!("{path}.envelope"), error.to_string())),
        }
    }
    if !decisions.is_empty() {
        report.check("decisions", format!("{} signed, of {} people", decisions.len(), people.len()));
        report.doubt("people_as_identified", "Who the people are is what the control plane knew of their logins.");
    }
}

/// What the plan says about the step with this id.
fn planned<'a>(content: &'a Value, step: &Value) -> Option<&'a Value> {
    let at = items(content, "steps").iter().position(|one| one["id"] == *step)?;
    content["plan"]["steps"].get(at)
}

/// A step that is a gate, or needs an approval, has succeeded only with a gate that passed.
fn steps(content: &Value, report: &mut Report) {
    let gates = items(content, "gates");
    for (at, step) in items(content, "steps").iter().enumerate() {
        let tool = text(&step["tool"]);
        let needs_approval = planned(content, &step["id"]).is_some_and(|step| step["approval"].is_object());
        let wanted = if tool.starts_with(ON_EVIDENCE) || tool.starts_with("manual:") {
            tool.to_owned()
        } else if needs_approval {
            format!("{APPROVAL}{tool}")
        } else {
            continue;
        };
        if step["status"] != "succeeded" {
            continue;
        }
        let has_passed = gates.iter().any(|gate| {
            gate["step_id"] == step["id"]
                && gate["gate_type"] == wanted.as_str()
                && gate["voided_at"].is_null()
                && matches!(text(&gate["status"]), "passed" | "waived")
        });
        if !has_passed {
            report.faults.push(fault(format!("content.steps[{at}]"), "it succeeded, and no gate of it passed"));
        }
    }
}

/// What the evidence itself says that it does not prove.
fn doubts(judged: &Judged<'_>, report: &mut Report) {
    let gate = Some(judged.name);
    let Some(evidence) = &judged.evidence else {
        let message = "The evidence is not included, so what it leaves unproved is not known.";
        report.doubt_at("evidence_not_included", message, gate);
        return;
    };
    if !judged.is_artifact {
        let message = "The gate judged a folder that the control plane's configuration names, and no artifact.";
        report.doubt_at("no_artifact_judged", message, gate);
    }
    for doubt in &evidence.not_proved {
        report.doubt_at(&doubt.code, &doubt.message, gate);
    }
    let unmeasured =
        evidence.coverage.as_ref().and_then(|coverage| coverage["unmeasured"].as_u64()).unwrap_or_default();
    if unmeasured > 0 {
        report.doubt_at(
            "unmeasured",
            &format!("Of {unmeasured} changed lines nobody knows whether a test runs them."),
            gate,
        );
    }
    if evidence.approvals.iter().any(|approval| approval.waived) {
        report.doubt_at("change_waived", "A person waived the question about weakened checks.", gate);
    }
}

/// Workspaces that the run ended with, and no gate judged.
fn workspaces(content: &Value, index: &Index<'_>, judged: &[Judged<'_>], report: &mut Report) {
    let all = items(content, "artifacts").iter();
    let made: Vec<&Value> =
        all.filter(|artifact| artifact["is_own"] == true && artifact["type"] == "workspace").collect();
    let replaced: BTreeSet<&str> = made
        .iter()
        .flat_map(|artifact| index.parents(text(&artifact["id"])))
        .map(|parent| text(&parent["id"]))
        .collect();
    for last in made.iter().filter(|artifact| !replaced.contains(text(&artifact["id"]))) {
        if !judged.iter().any(|one| one.statement.names_archive(text(&last["hash"]))) {
            let message =
                format!("No gate judged the workspace {} of the step {}.", text(&last["name"]), text(&last["step"]));
            report.doubt("workspace_not_judged", &message);
        }
    }
    let trees: BTreeSet<Vec<&String>> = judged
        .iter()
        .map(|one| one.statement.subject.iter().filter_map(|subject| subject.digest.get("gitTree")).collect())
        .collect();
    if trees.len() > 1 {
        report.doubt("different_trees", "The gates judged different trees: --repo says which ones judged yours.");
    }
    if judged.is_empty() {
        report.doubt("nothing_judged", "No gate judged code in this run.");
    }
}

/// Whether every gate judged the checkout.
fn repo(judged: &[Judged<'_>], options: &Options, report: &mut Report) -> Result<()> {
    let Some(dir) = &options.repo else {
        if !judged.is_empty() {
            report
                .doubt("no_checkout", "No checkout was compared: --repo DIR compares one with what the gates judged.");
        }
        return Ok(());
    };
    let tree = tree_of(dir)?;
    let (same, other): (Vec<&Judged<'_>>, Vec<&Judged<'_>>) =
        judged.iter().partition(|one| one.statement.names_tree(&tree));
    let names = |list: &[&Judged<'_>]| list.iter().map(|one| one.name).collect::<Vec<_>>().join(", ");
    if same.is_empty() {
        report.missing.push(format!("no gate judged the tree {} of {}", tree.sha1, dir.display()));
    } else {
        report.check("repo", format!("the tree {} is what {} judged", tree.sha1, names(&same)));
    }
    if !other.is_empty() && !same.is_empty() {
        report.missing.push(format!("another tree than that of {} is what {} judged", dir.display(), names(&other)));
    }
    Ok(())
}

/// The id of the files of a folder as gates see them: packed and unpacked again.
fn tree_of(dir: &Path) -> Result<TreeDigest> {
    let archive = workspace::pack(dir, None)?;
    let target = tempfile::tempdir().context("cannot make a temporary folder")?;
    unpack(&archive, target.path(), Limits::default(), &|| Ok(())).context("cannot unpack the checkout")?;
    Ok(Snapshot::take(target.path()).context("cannot read the checkout")?.digest())
}
