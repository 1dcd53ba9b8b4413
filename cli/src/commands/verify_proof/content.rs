//! What the sections of a proof say about each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use shared::domain::digest::{canonical_sha256, sha256_hex};

use super::fault;
use super::report::Report;

/// The items of a section.
pub fn items<'a>(content: &'a Value, section: &str) -> &'a [Value] {
    content[section].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// An empty text if it is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The state of an attempt. An empty text if there is no such attempt.
pub fn attempt_status<'a>(content: &'a Value, step: &str, number: u64) -> &'a str {
    let attempts = items(content, "attempts").iter();
    let mut found = attempts.filter(|one| one["step"] == step && one["attempt"] == number);
    found.next().map_or("", |attempt| text(&attempt["status"]))
}

pub fn check(content: &Value, report: &mut Report) {
    plan(content, report);
    events(content, report);
    attempts(content, report);
    steps(content, report);
    artifacts(content, report);
    edges(content, report);
    documents(content, report);
}

fn plan(content: &Value, report: &mut Report) {
    if canonical_sha256(&content["plan"]).ok().as_deref() == content["run"]["plan_digest"].as_str() {
        report.check("plan", format!("has the digest {}", text(&content["run"]["plan_digest"])));
    } else {
        report.faults.push(fault("content.plan", "it does not have the digest of the run's plan"));
    }
}

fn events(content: &Value, report: &mut Report) {
    let events = items(content, "events");
    for (at, event) in events.iter().enumerate() {
        if event["seq"].as_u64() != Some(at as u64 + 1) {
            report.faults.push(fault(format!("content.events[{at}].seq"), "events are numbered from 1 without gaps"));
            return;
        }
    }
    if content["run"]["events"].as_u64() != Some(events.len() as u64) {
        report.faults.push(fault("content.events", "the run has another number of events"));
        return;
    }
    report.check("events", format!("{} in order, without gaps", events.len()));
    let omitted = events.iter().filter(|event| event["payload"]["omitted"]["sha256"].is_string()).count();
    if omitted > 0 {
        report.doubt("payloads_omitted", &format!("Of {omitted} events only the digest of what they say is included."));
    }
    if events.iter().any(|event| event["type"] == "llm.cached") {
        report.doubt("cached", "Some texts are earlier answers to the same question: no model was asked again.");
    }
}

/// Attempts are numbered from 1 up to that of their step.
fn attempts(content: &Value, report: &mut Report) {
    let mut numbers: HashMap<&str, u64> = HashMap::new();
    for (at, attempt) in items(content, "attempts").iter().enumerate() {
        let last = numbers.entry(text(&attempt["step"])).or_default();
        *last += 1;
        if attempt["attempt"].as_u64() != Some(*last) {
            report.faults.push(fault(format!("content.attempts[{at}]"), "attempts are numbered from 1 without gaps"));
            return;
        }
    }
    for (at, step) in items(content, "steps").iter().enumerate() {
        let number = numbers.remove(text(&step["name"])).unwrap_or_default();
        if step["attempt"].as_u64() != Some(number) {
            report.faults.push(fault(format!("content.steps[{at}].attempt"), "it has another number of attempts"));
        }
    }
    if let Some(name) = numbers.keys().next() {
        report.faults.push(fault("content.attempts", format!("the step {name} does not exist")));
    }
    report.check("attempts", items(content, "attempts").len().to_string());
}

/// The steps are those of the plan, and the run's state follows from theirs.
fn steps(content: &Value, report: &mut Report) {
    let steps = items(content, "steps");
    let planned = content["plan"]["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let are_planned = steps.len() == planned.len()
        && steps
            .iter()
            .zip(planned)
            .all(|(step, planned)| step["name"] == planned["name"] && step["tool"] == planned["tool"]);
    if !are_planned {
        report.faults.push(fault("content.steps", "they are not the steps of the plan"));
        return;
    }
    let has_succeeded = steps.iter().all(|step| step["status"] == "succeeded");
    if content["run"]["status"] == "succeeded" && !has_succeeded {
        report.faults.push(fault("content.steps", "the run succeeded, and not every step did"));
        return;
    }
    report.check("steps", format!("{} as planned", steps.len()));
    let with_outputs = steps.iter().filter(|step| step["outputs"].is_object()).count();
    if with_outputs > 0 {
        report.doubt(
            "outputs_not_included",
            "Outputs of steps are not included, only digests of the text that the database has of them.",
        );
    }
}

/// Every artifact that the run made has an event, and every such event an artifact.
fn artifacts(content: &Value, report: &mut Report) {
    let mut recorded: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut is_whole = true;
    for event in items(content, "events").iter().filter(|event| event["type"] == "artifact.created") {
        is_whole &= !event["payload"]["omitted"].is_object();
        recorded.insert(text(&event["payload"]["artifact_id"]), &event["payload"]["hash"]);
    }
    let mut ids = BTreeSet::new();
    for (at, artifact) in items(content, "artifacts").iter().enumerate() {
        let id = text(&artifact["id"]);
        if !ids.insert(id) {
            report.faults.push(fault(format!("content.artifacts[{at}]"), "the same artifact is there twice"));
        }
        if artifact["is_own"] == true {
            let event = recorded.remove(id);
            if event != Some(&artifact["hash"]) && is_whole {
                let message = "no event recorded that the run made it with this digest";
                report.faults.push(fault(format!("content.artifacts[{at}]"), message));
            }
        }
    }
    if let Some(id) = recorded.keys().next().filter(|_| is_whole) {
        report
            .faults
            .push(fault("content.artifacts", format!("the artifact {id} is missing, and an event recorded it")));
    }
    let own = items(content, "artifacts").iter().filter(|artifact| artifact["is_own"] == true).count();
    report.check("artifacts", format!("{own} of the run, {} that it took", ids.len() - own));
    for artifact in items(content, "artifacts").iter().filter(|artifact| artifact["deleted_at"].is_string()) {
        let day = text(&artifact["deleted_at"]).get(..10).unwrap_or_default();
        let name = text(&artifact["name"]);
        report.doubt("bytes_deleted", &format!("The bytes of {name} were deleted on {day}: no file can be compared."));
    }
    if own > 0 {
        report.doubt(
            "files_not_included",
            "The files are not included, only their digests: compare a file with sha256sum.",
        );
    }
}

/// Both ends of an edge are in the proof.
fn edges(content: &Value, report: &mut Report) {
    let ids: BTreeSet<&str> = items(content, "artifacts").iter().map(|artifact| text(&artifact["id"])).collect();
    for (at, edge) in items(content, "edges").iter().enumerate() {
        let (from, to) = (text(&edge["from"]), text(&edge["to"]));
        if from == to || !ids.contains(from) || !ids.contains(to) {
            report.faults.push(fault(format!("content.edges[{at}]"), "it does not join two artifacts of the proof"));
        }
    }
    report.check("lineage", format!("{} edges", items(content, "edges").len()));
}

/// Documents have the digests of their artifacts.
fn documents(content: &Value, report: &mut Report) {
    let hashes: HashMap<&str, &Value> =
        items(content, "artifacts").iter().map(|artifact| (text(&artifact["id"]), &artifact["hash"])).collect();
    let mut included = 0;
    for (at, document) in items(content, "documents").iter().enumerate() {
        let hash = hashes.get(text(&document["artifact"])).copied();
        if hash != Some(&document["sha256"]) {
            report.faults.push(fault(format!("content.documents[{at}]"), "it is no artifact of the proof"));
            continue;
        }
        match document["text"].as_str() {
            Some(content) if Some(sha256_hex(content.as_bytes()).as_str()) == document["sha256"].as_str() => {
                included += 1;
            }
            Some(_) => {
                let message = "it does not have the digest of its artifact";
                report.faults.push(fault(format!("content.documents[{at}].text"), message));
            }
            None => {
                let why = text(&document["omitted"]);
                report.doubt("document_omitted", &format!("A document is not included, only its digest ({why})."));
            }
        }
    }
    report.check("documents", format!("{included} included"));
}
