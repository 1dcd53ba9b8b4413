//! Whether the rows of a run say the same as its events, which recorded each change when it happened.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::content::{attempt_status, items, text};
use super::fault;
use super::report::Report;

/// How a gate can end. Each has an event `gate.<status>`.
const ENDS: [&str; 5] = ["passed", "failed", "waived", "expired", "cancelled"];

pub fn check(content: &Value, report: &mut Report) {
    run(content, report);
    steps(content, report);
    attempts(content, report);
    gates(content, report);
}

/// Events whose type starts with this prefix.
fn of<'a>(content: &'a Value, prefix: &'a str) -> impl DoubleEndedIterator<Item = &'a Value> {
    items(content, "events").iter().filter(move |event| text(&event["type"]).starts_with(prefix))
}

/// Whether an event says what happened, and not only the digest of that.
fn is_whole(event: &Value) -> bool {
    !event["payload"]["omitted"].is_object()
}

fn run(content: &Value, report: &mut Report) {
    let run = &content["run"];
    let last = of(content, "run.").next_back().map_or("none", |event| text(&event["type"]));
    if last != format!("run.{}", text(&run["status"])) {
        report.faults.push(fault("content.run.status", format!("the last event of the run is {last}")));
    }
    let retries = of(content, "run.retried").count() as u64;
    if run["generation"].as_u64() != Some(retries + 1) {
        report.faults.push(fault("content.run.generation", format!("{retries} events retried the run")));
    }
    let created = of(content, "run.created").next().filter(|event| is_whole(event));
    for (said, field) in [("plan_digest", "plan_digest"), ("goal", "goal")] {
        let recorded = created.map(|event| &event["payload"][said]).filter(|recorded| !recorded.is_null());
        if recorded.is_some_and(|recorded| *recorded != run[field]) {
            report
                .faults
                .push(fault(format!("content.run.{field}"), "the event that created the run says another one"));
        }
    }
}

/// The last event of each step is its state.
fn steps(content: &Value, report: &mut Report) {
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for event in of(content, "step.") {
        last.insert(text(&event["step"]), text(&event["type"]));
    }
    for (at, step) in items(content, "steps").iter().enumerate() {
        let event = last.get(text(&step["name"])).copied().unwrap_or("none");
        if event != format!("step.{}", text(&step["status"])) {
            let path = format!("content.steps[{at}].status");
            report.faults.push(fault(path, format!("the last event of the step is {event}")));
        }
    }
}

/// Attempts ended as events say.
fn attempts(content: &Value, report: &mut Report) {
    let (mut ended, mut are_whole) = (BTreeSet::new(), true);
    for event in of(content, "step.") {
        let (kind, step) = (text(&event["type"]), text(&event["step"]));
        are_whole &= is_whole(event);
        let Some(number) = event["payload"]["attempt"].as_u64() else { continue };
        let found = attempt_status(content, step, number);
        let fits = match kind {
            "step.succeeded" => found == "succeeded",
            "step.failed" => ["failed", "lost"].contains(&found),
            "step.retrying" => found == "failed",
            "step.worker_lost" => found == "lost",
            _ => true,
        };
        if kind != "step.started" {
            ended.insert((step, number));
        }
        if !fits {
            let message =
                format!("attempt {number} of the step {step} is {found}, and the event {kind} recorded its end");
            report.faults.push(fault("content.attempts", message));
        }
    }
    for (at, attempt) in items(content, "attempts").iter().enumerate() {
        let (step, number) = (text(&attempt["step"]), attempt["attempt"].as_u64().unwrap_or_default());
        let has_ended = matches!(text(&attempt["status"]), "succeeded" | "failed");
        if are_whole && has_ended && !ended.contains(&(step, number)) {
            let path = format!("content.attempts[{at}].status");
            report.faults.push(fault(path, "no event recorded how it ended"));
        }
    }
}

/// What events say about a gate.
#[derive(Default)]
struct Told<'a> {
    /// Its state after its last event.
    status: &'a str,
    kind: &'a str,
    /// Whether its decision stopped counting afterwards.
    is_voided: bool,
}

/// Every gate is as its events say, and every gate with events is there.
fn gates(content: &Value, report: &mut Report) {
    let (mut told, mut are_whole): (BTreeMap<&str, Told<'_>>, bool) = (BTreeMap::new(), true);
    for event in of(content, "gate.") {
        are_whole &= is_whole(event);
        let gate = told.entry(text(&event["payload"]["gate_id"])).or_default();
        gate.kind = text(&event["payload"]["gate_type"]);
        match text(&event["type"]).trim_start_matches("gate.") {
            "created" => gate.status = "pending",
            "voided" => gate.is_voided = gate.status != "pending",
            end if ENDS.contains(&end) => *gate = Told { status: end, is_voided: false, ..*gate },
            _ => {}
        }
    }
    if !are_whole {
        return counts(content, report);
    }
    for (at, gate) in items(content, "gates").iter().enumerate() {
        let said = told.remove(text(&gate["id"])).unwrap_or_default();
        if said.status != text(&gate["status"]) {
            let said = if said.status.is_empty() { "nothing" } else { said.status };
            report.faults.push(fault(format!("content.gates[{at}].status"), format!("events say {said}")));
        } else if said.kind != text(&gate["gate_type"]) {
            report.faults.push(fault(format!("content.gates[{at}].gate_type"), format!("events say {}", said.kind)));
        } else if matches!(said.status, "passed" | "waived") && said.is_voided == gate["voided_at"].is_null() {
            let message = "events say something else about whether its decision still counts";
            report.faults.push(fault(format!("content.gates[{at}].voided_at"), message));
        }
    }
    if let Some((id, said)) = told.into_iter().next() {
        let message = format!("the gate {id} is missing, and an event recorded that it was {}", said.status);
        report.faults.push(fault("content.gates", message));
    }
}

/// If not every event says which gate it is about: as many gates of a step ended in each way as events say.
fn counts(content: &Value, report: &mut Report) {
    let name = |id: &Value| {
        items(content, "steps").iter().find(|step| step["id"] == *id).map_or("", |step| text(&step["name"]))
    };
    let mut found: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for event in of(content, "gate.") {
        let end = text(&event["type"]).trim_start_matches("gate.");
        if ENDS.contains(&end) {
            *found.entry((text(&event["step"]), end)).or_default() += 1;
        }
    }
    for gate in items(content, "gates").iter().filter(|gate| gate["status"] != "pending") {
        *found.entry((name(&gate["step_id"]), text(&gate["status"]))).or_default() -= 1;
    }
    if let Some(((step, end), _)) = found.into_iter().find(|(_, difference)| *difference != 0) {
        let message = format!("another number of gates of the step {step:?} is {end} than events say");
        report.faults.push(fault("content.gates", message));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(gate: &Value, events: &[&str]) -> Vec<String> {
        let event = |kind: &&str| json!({ "type": kind, "payload": { "gate_id": "g", "gate_type": "review" } });
        let content = json!({ "gates": [gate], "events": events.iter().map(event).collect::<Vec<_>>() });
        let mut report = Report::default();
        gates(&content, &mut report);
        report.faults.into_iter().map(|fault| fault.message).collect()
    }

    #[test]
    fn only_a_decision_can_stop_counting() {
        let gate = |status: &str, voided_at: Value| json!({ "id": "g", "gate_type": "review", "status": status, "voided_at": voided_at });
        // A repair cancels a gate that nobody has decided, and asks it again.
        assert_eq!(faults(&gate("cancelled", json!("now")), &["gate.created", "gate.cancelled"]), [""; 0]);
        let voided = ["gate.created", "gate.passed", "gate.voided"];
        assert_eq!(faults(&gate("passed", json!("now")), &voided), [""; 0]);
        assert_eq!(faults(&gate("passed", Value::Null), &voided).len(), 1);
        assert_eq!(faults(&gate("passed", json!("now")), &voided[..2]).len(), 1);
    }
}
