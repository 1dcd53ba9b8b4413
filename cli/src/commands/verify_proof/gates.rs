//! Gates of a proof: those that evidence decided, and those that people did.

use std::collections::{BTreeSet, HashMap};

use nofx_gates::attestation::{Envelope, Statement, TestResult, TestVerdict};
use nofx_gates::evidence::{Attempt, DoubtCode, Evidence, Source, Verdict};
use serde_json::Value;
use shared::domain::GateStatus;
use shared::domain::gate::{APPROVAL, ON_EVIDENCE};
use shared::domain::provenance::Index;
use shared::signing::PublicKey;
use shared::view::KeyPurpose;

use super::content::{attempt_status, items, text};
use super::report::Report;
use super::{Options, checkout, fault, people};
use crate::commands::verify::is_about;

/// A gate that evidence decided.
pub struct Judged<'a> {
    pub name: &'a str,
    step: &'a str,
    attempt: u64,
    /// Whether it is the result of the last attempt of its step. A repair replaces earlier ones.
    is_last: bool,
    pub statement: Statement,
    result: TestResult,
    /// Whether it judged an artifact that the step took.
    is_artifact: bool,
    /// The evidence, if it is in the proof.
    evidence: Option<Evidence>,
}

/// What a gate is compared with.
struct Sources<'a, 'b> {
    content: &'a Value,
    index: &'b Index<'a>,
    /// Texts of documents, by the id of their artifact.
    documents: HashMap<&'a str, &'a str>,
    /// Those of evidence.
    keys: Vec<PublicKey>,
}

pub fn check<'a>(content: &'a Value, index: &Index<'a>, options: &Options, report: &mut Report) {
    let documents = items(content, "documents")
        .iter()
        .filter_map(|document| Some((document["artifact"].as_str()?, document["text"].as_str()?)))
        .collect();
    let sources = Sources { content, index, documents, keys: options.keys.keys(KeyPurpose::Evidence) };
    let (mut judged, mut decided) = (Vec::new(), 0);
    for (at, gate) in items(content, "gates").iter().enumerate() {
        match (text(&gate["gate_type"]).starts_with(ON_EVIDENCE), text(&gate["status"])) {
            (true, "passed" | "failed") => match by_evidence(gate, &sources) {
                Ok(one) => judged.extend(one),
                Err(message) => report.faults.push(fault(format!("content.gates[{at}]"), message)),
            },
            (_, "passed" | "waived") if gate["voided_at"].is_null() => {
                decided += u64::from(people::decided(content, gate, options, report));
            }
            _ => {}
        }
    }
    people::check(content, options, report);
    attested(&sources, report);
    let passed = judged.iter().filter(|one| one.result.result != TestVerdict::Failed).count();
    report.check("gates", format!("{passed} passed by evidence, {decided} by decisions of people"));
    results(&judged, report);
    steps(content, report);
    let last: Vec<&Judged<'_>> =
        judged.iter().filter(|one| one.is_last && one.result.result != TestVerdict::Failed).collect();
    for one in &last {
        doubts(one, report);
    }
    workspaces(content, index, &judged, report);
    trees(&last, report);
    checkout::check(&last, options, report);
}

/// Verifies the attestation of a gate, and that it is about what its step took. None if the attestation of a gate that failed is
/// not included.
fn by_evidence<'a>(gate: &'a Value, sources: &Sources<'a, '_>) -> Result<Option<Judged<'a>>, String> {
    let Sources { content, index, documents, keys } = sources;
    let evidence = index.artifact(text(&gate["evidence_id"])).ok_or("it has no evidence")?;
    let (name, attempt) = (text(&evidence["step"]), evidence["attempt"].as_u64().unwrap_or_default());
    let step = index.step(name).filter(|step| step["id"] == gate["step_id"]);
    let step = step.ok_or("its evidence is that of another step")?;
    let attestation = index.made(name, attempt).iter().find(|artifact| artifact["type"] == "gate_attestation");
    let attestation = attestation.ok_or("it has no attestation")?;
    let Some(envelope) = documents.get(text(&attestation["id"])) else {
        return if gate["status"] == "failed" { Ok(None) } else { Err("its attestation is not included".to_owned()) };
    };
    let statement = Envelope::read(envelope.as_bytes())
        .and_then(|envelope| envelope.verify(keys, 1))
        .and_then(|verified| verified.statement())
        .map_err(|error| format!("its attestation is not verified: {error}"))?;
    let result = statement.test_result().map_err(|error| error.to_string())?;
    let status: GateStatus = serde_json::from_value(gate["status"].clone()).map_err(|error| error.to_string())?;
    is_about(&result, text(&gate["gate_type"]), status).map_err(|error| error.to_string())?;
    if result.evidence_sha256() != evidence["hash"].as_str() {
        return Err("its attestation is about other evidence".to_owned());
    }
    let ended = if status == GateStatus::Passed { "succeeded" } else { "failed" };
    let found = attempt_status(content, name, attempt);
    if found != ended {
        return Err(format!("it is {status}, and its attempt is {found}"));
    }
    let taken = index.parents(text(&evidence["id"]));
    let judged_files = statement.subject.iter().any(|subject| subject.name == "workspace");
    // Without a workspace the gate judged a folder that the configuration names: no artifact.
    let named = planned(content, &gate["step_id"]).is_some_and(|step| !step["inputs"]["workspace"].is_null());
    let is_artifact = !taken.is_empty() || named || !content["run"]["workspace"].is_null();
    if judged_files && is_artifact && !taken.iter().any(|artifact| statement.names_archive(text(&artifact["hash"]))) {
        return Err("its attestation is about another tree than the one that the step took".to_owned());
    }
    if gate["subject"]["tree"].is_object()
        && serde_json::from_value(gate["subject"]["tree"].clone()).is_ok_and(|tree| !statement.names_tree(&tree))
    {
        return Err("its attestation is about another tree than the gate".to_owned());
    }
    let of = Attempt {
        run_id: text(&content["run"]["id"]).to_owned(),
        step_id: text(&gate["step_id"]).to_owned(),
        number: u32::try_from(attempt).unwrap_or_default(),
    };
    if result.attempt().is_some_and(|signed| signed != of) {
        return Err("its attestation is about another attempt".to_owned());
    }
    let read = documents.get(text(&evidence["id"])).map(|text| serde_json::from_str(text)).transpose();
    let read: Option<Evidence> = read.map_err(|_| "its evidence cannot be read")?;
    if let Some(read) = &read {
        agrees(read, &statement, &result, &of)?;
    }
    let is_last = step["attempt"].as_u64() == Some(attempt);
    let (gate, is_artifact) = (text(&gate["gate_type"]), !taken.is_empty());
    Ok(Some(Judged { name: gate, step: name, attempt, is_last, statement, result, is_artifact, evidence: read }))
}

/// Whether evidence says the same as the statement about it.
fn agrees(evidence: &Evidence, statement: &Statement, result: &TestResult, of: &Attempt) -> Result<(), String> {
    if evidence.attempt.as_ref() != Some(of) {
        return Err("its evidence is about another attempt".to_owned());
    }
    if (evidence.verdict == Verdict::Passed) != (result.result != TestVerdict::Failed) {
        return Err("its evidence and its attestation have different results".to_owned());
    }
    if evidence.subject.as_ref().is_some_and(|subject| !statement.names_tree(&subject.tree)) {
        return Err("its evidence and its attestation name different trees".to_owned());
    }
    Ok(())
}

/// Every attempt that left an attestation ended with its gate, or asked people about the checks, or has no verdict.
fn attested(sources: &Sources<'_, '_>, report: &mut Report) {
    let Sources { content, index, .. } = sources;
    let of = |artifact: &Value| (artifact["step"].clone(), artifact["attempt"].clone());
    let gates = items(content, "gates").iter().filter(|gate| text(&gate["gate_type"]).starts_with(ON_EVIDENCE));
    let with_gates: Vec<_> = gates.filter_map(|gate| index.artifact(text(&gate["evidence_id"]))).map(of).collect();
    for (at, artifact) in items(content, "artifacts").iter().enumerate() {
        let (step, number) = (text(&artifact["step"]), artifact["attempt"].as_u64().unwrap_or_default());
        let has_ended = matches!(attempt_status(content, step, number), "succeeded" | "failed");
        let is_attestation = artifact["is_own"] == true && artifact["type"] == "gate_attestation";
        let is_alone = is_attestation && has_ended && !with_gates.contains(&of(artifact));
        match is_alone.then(|| has_no_verdict(sources, step, number)) {
            None | Some(Some(true)) => {}
            Some(Some(false)) => report
                .faults
                .push(fault(format!("content.artifacts[{at}]"), "it is an attestation, and its gate is missing")),
            Some(None) => report.missing.push(format!(
                "attempt {number} of {step} left an attestation and no gate, and its evidence is not included"
            )),
        }
    }
}

/// Whether a failed attempt says for the same reason as its evidence that it has no verdict: its runner was lost, for example. None
/// if the evidence is not included.
fn has_no_verdict(sources: &Sources<'_, '_>, step: &str, number: u64) -> Option<bool> {
    let Sources { content, index, documents, .. } = sources;
    let attempt = items(content, "attempts").iter().find(|one| one["step"] == step && one["attempt"] == number);
    let code = attempt.map_or("", |attempt| text(&attempt["error"]));
    let evidence = index.made(step, number).iter().find(|artifact| artifact["type"] == "gate_evidence");
    let document = evidence.and_then(|evidence| documents.get(text(&evidence["id"])));
    if matches!(code, "" | "gate_failed") {
        return Some(false);
    }
    let reason = serde_json::from_str::<Value>(document?).ok()?;
    Some(reason["reason"]["code"] == code)
}

/// The result of each gate. By the rule of `nofx verify GATE`, one that is WARNED has not passed.
fn results(judged: &[Judged<'_>], report: &mut Report) {
    for one in judged {
        let Judged { name, step, attempt, result, .. } = one;
        let word = match result.result {
            TestVerdict::Passed => "PASSED",
            TestVerdict::Warned => "WARNED",
            TestVerdict::Failed => "FAILED",
        };
        report.check("gate", format!("{name} is {word}, in attempt {attempt} of {step}"));
        if one.is_last && result.result == TestVerdict::Warned {
            let why = match result.source() {
                Some(Source::Candidate) => DoubtCode::DefinitionCandidate.message(),
                Some(Source::Approved) => DoubtCode::DefinitionApproved.message(),
                Some(Source::Base) | None => "It has findings that do not count, or a person let it pass.",
            };
            report.missing.push(format!("the gate {name} of {step} is WARNED: {why}"));
        }
    }
}

/// What the plan says about the step with this id.
pub fn planned<'a>(content: &'a Value, step: &Value) -> Option<&'a Value> {
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
    if judged.result.attempt().is_none() {
        let message = "The attestation does not say which attempt it is about: it was signed by an earlier release.";
        report.doubt_at("attempt_not_signed", message, gate);
    }
    let Some(evidence) = &judged.evidence else {
        let message = "The evidence is not included, so what it leaves unproved is not known.";
        report.doubt_at("evidence_not_included", message, gate);
        let code = match judged.result.source() {
            Some(Source::Candidate) => DoubtCode::DefinitionCandidate,
            Some(Source::Approved) => DoubtCode::DefinitionApproved,
            Some(Source::Base) | None => return,
        };
        report.doubt_at(code.as_str(), code.message(), gate);
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
    let code = DoubtCode::ChangeWaived;
    let is_known = evidence.not_proved.iter().any(|doubt| doubt.code == code.as_str());
    if !is_known && evidence.approvals.iter().any(|approval| approval.waived) {
        report.doubt_at(code.as_str(), code.message(), gate);
    }
}

/// Workspaces that the run ended with, and no gate judged. A repair replaces those of earlier attempts.
fn workspaces(content: &Value, index: &Index<'_>, judged: &[Judged<'_>], report: &mut Report) {
    let all = items(content, "artifacts").iter();
    let made: Vec<&Value> =
        all.filter(|artifact| artifact["is_own"] == true && artifact["type"] == "workspace").collect();
    let is_last = |artifact: &Value| {
        index.step(text(&artifact["step"])).is_some_and(|step| step["attempt"] == artifact["attempt"])
    };
    let replaced: BTreeSet<&str> = made
        .iter()
        .flat_map(|artifact| index.parents(text(&artifact["id"])))
        .map(|parent| text(&parent["id"]))
        .collect();
    for last in made.iter().filter(|artifact| is_last(artifact) && !replaced.contains(text(&artifact["id"]))) {
        if !judged.iter().any(|one| one.statement.names_archive(text(&last["hash"]))) {
            let message =
                format!("No gate judged the workspace {} of the step {}.", text(&last["name"]), text(&last["step"]));
            report.doubt("workspace_not_judged", &message);
        }
    }
}

/// Whether the gates that passed judged the same tree.
fn trees(passed: &[&Judged<'_>], report: &mut Report) {
    let trees: BTreeSet<Vec<&String>> = passed
        .iter()
        .map(|one| one.statement.subject.iter().filter_map(|subject| subject.digest.get("gitTree")).collect())
        .collect();
    if trees.len() > 1 {
        report.doubt("different_trees", "The gates judged different trees: --repo says which ones judged yours.");
    }
    if passed.is_empty() {
        report.doubt("nothing_judged", "No gate that passed judged code in this run.");
    }
}
