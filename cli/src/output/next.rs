//! What happens next in a run, in the console's words, from what the API says about it.

use std::collections::HashMap;
use std::time::SystemTime;

use nofx_local::report::printable;
use shared::domain::{GateStatus, RunStatus, StepStatus, Timestamp};
use shared::view::next::{GateNow, Next, Standing, StepNow, is_result, next};
use shared::view::sentence::Part;
use shared::view::{Gate, RunDetail, Step, StepWhy};

use super::time;

/// What is known of a run.
#[derive(Debug)]
pub struct Known<'a> {
    /// With all of its steps.
    pub detail: &'a RunDetail,
    /// All of them, of any generation.
    pub gates: &'a [Gate],
    /// More about some of the steps.
    pub explained: &'a [StepWhy],
}

/// The sentence about what happens next, without a full stop.
pub fn lead(known: &Known<'_>, now: SystemTime) -> String {
    of(known, now, |next| words(&next.lead, now))
}

/// The same with its reasons, as sentences.
pub fn sentences(known: &Known<'_>, now: SystemTime) -> String {
    of(known, now, |next| {
        let all = std::iter::once(&next.lead).chain(&next.more);
        all.map(|parts| format!("{}.", words(parts, now))).collect::<Vec<_>>().join(" ")
    })
}

fn of(known: &Known<'_>, now: SystemTime, said: impl FnOnce(&Next<'_>) -> String) -> String {
    let edges = edges(known.detail);
    said(&next(&standing(known, &edges, now)))
}

/// Whether people can decide a gate. The sweeper ends a gate some time after its expiry, and nobody can decide it until then.
pub fn is_open(gate: &Gate, now: SystemTime) -> bool {
    gate.status == GateStatus::Pending && !time::is_over(gate.expires_at.as_ref(), now)
}

/// Parents and children, by their places in the plan.
fn edges(detail: &RunDetail) -> Vec<(i64, i64)> {
    let places: HashMap<&str, i64> = detail.steps.iter().map(|step| step.name.as_str()).zip(0..).collect();
    let children = detail.steps.iter().zip(0..);
    children
        .flat_map(|(step, child)| step.depends_on.iter().map(move |parent| (parent, child)))
        .filter_map(|(parent, child)| Some((*places.get(parent.as_str())?, child)))
        .collect()
}

fn standing<'a>(known: &Known<'a>, edges: &'a [(i64, i64)], now: SystemTime) -> Standing<'a> {
    let RunDetail { run, steps, artifacts, .. } = known.detail;
    let is_due = |step: &&Step| step.status == StepStatus::Ready && !is_later(step.ready_at.as_ref(), now);
    let ready_since = steps.iter().filter(is_due).filter_map(|step| step.ready_at.as_ref());
    let took = time::between(run.started_at.as_ref(), run.finished_at.as_ref(), now);
    let stopped_at = if run.status == RunStatus::Paused { &run.paused_at } else { &run.finished_at };
    Standing {
        status: run.status,
        failure: run.failure.as_ref().map(|failure| failure.message.as_str()),
        stopped: stopped_at.as_ref().map(|at| (None, at)),
        deadline_at: run.deadline_at.as_ref(),
        ready_since: ready_since.min_by_key(|at| time::time(at)),
        took_ms: took.and_then(|took| took.as_millis().try_into().ok()),
        steps: steps.iter().zip(0..).map(|(step, ordinal)| step_now(known, step, ordinal, now)).collect(),
        steps_total: steps.len() as u64,
        edges,
        gates: known.gates.iter().map(|gate| gate_now(steps, gate, now)).collect(),
        gates_total: known.gates.len() as u64,
        gates_open: known.gates.iter().filter(|gate| is_open(gate, now)).count() as u64,
        artifacts_total: artifacts.len() as u64,
        artifact: artifacts.iter().rev().find(|one| is_result(&one.kind)).map(|one| (one.name.as_str(), one.id)),
    }
}

fn step_now<'a>(known: &Known<'a>, step: &'a Step, ordinal: i64, now: SystemTime) -> StepNow<'a> {
    let explained = known.explained.iter().find(|why| why.name == step.name);
    let is_open = matches!(step.status, StepStatus::Running | StepStatus::Blocked | StepStatus::Ready);
    StepNow {
        ordinal,
        name: &step.name,
        tool: &step.tool,
        status: step.status,
        attempt: step.attempt.into(),
        failures: explained.map_or(0, |why| why.failures.into()),
        workers_lost: explained.map_or(0, |why| why.workers_lost.into()),
        open_since: step.started_at.as_ref().filter(|_| is_open),
        next_try_at: step.ready_at.as_ref().filter(|at| step.status == StepStatus::Ready && is_later(Some(at), now)),
        error: step.error.as_ref().map(|error| error.message.as_str()),
    }
}

fn gate_now<'a>(steps: &'a [Step], gate: &'a Gate, now: SystemTime) -> GateNow<'a> {
    let step = gate.step_id.and_then(|id| steps.iter().find(|step| step.id == id));
    GateNow {
        id: gate.id,
        gate_type: &gate.gate_type,
        step: step.map(|step| step.name.as_str()),
        status: gate.status,
        is_over: time::is_over(gate.expires_at.as_ref(), now),
        on_pass: gate.on_pass,
        actor: gate.decision.as_ref().map(|decision| decision.actor.as_str()),
        created_at: &gate.created_at,
        expires_at: gate.expires_at.as_ref(),
    }
}

fn is_later(at: Option<&Timestamp>, now: SystemTime) -> bool {
    at.and_then(time::time).is_some_and(|at| at > now)
}

/// A sentence with times as a reader counts them.
fn words(parts: &[Part<'_>], now: SystemTime) -> String {
    let word = |part: &Part<'_>| match part {
        Part::Since(at) => time::between(Some(at), None, now).map_or_else(|| part.to_string(), time::span),
        Part::Until(at) => match time::time(at).map(|at| at.duration_since(now)) {
            Some(Ok(left)) => format!("in {}", time::span(left)),
            Some(Err(_)) => "now".to_owned(),
            None => part.to_string(),
        },
        Part::At(at) => time::ago(at, now),
        _ => part.to_string(),
    };
    printable(&parts.iter().map(word).collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::output::time::parse;

    fn step(at: usize, name: &str, status: &str, parents: &[&str]) -> Value {
        json!({
            "id": format!("0193c0de-0000-7000-8000-0000000001{at:02}"), "name": name, "tool": "manual:x",
            "status": status, "inputs": {}, "outputs": null, "error": null, "attempt": 1, "blockers": 0,
            "depends_on": parents, "ready_at": null, "started_at": "2026-11-23T10:00:00+00:00", "finished_at": null,
        })
    }

    fn detail(status: &str, steps: &[Value]) -> RunDetail {
        serde_json::from_value(json!({
            "run": {
                "id": "0193c0de-0000-7000-8000-000000000001", "status": status, "goal": "g", "plan": null,
                "plan_digest": "a", "generation": 2, "failure": null, "timeout_s": null, "deadline_at": null,
                "created_at": "2026-11-23T10:00:00+00:00", "started_at": "2026-11-23T10:00:00+00:00",
                "paused_at": "2026-11-23T10:01:00+00:00", "finished_at": null,
            },
            "steps": steps, "artifacts": [],
        }))
        .unwrap()
    }

    fn gate(generation: u32, status: &str) -> Gate {
        serde_json::from_value(json!({
            "id": "0193c0de-0000-7000-8000-00000000000a", "run_id": "0193c0de-0000-7000-8000-000000000001",
            "step_id": "0193c0de-0000-7000-8000-000000000101", "gate_type": "manual:x", "status": status,
            "on_pass": "finish", "generation": generation, "evidence_uri": null, "reason": null, "approved_by": null,
            "approved_at": null, "expires_at": "2026-11-23T10:10:00+00:00", "created_at": "2026-11-23T10:02:00+00:00",
            "decided_at": null, "decision": null,
        }))
        .unwrap()
    }

    fn told(detail: &RunDetail, gates: &[Gate], explained: &[StepWhy]) -> String {
        sentences(&Known { detail, gates, explained }, parse("2026-11-23T10:05:00Z").unwrap())
    }

    #[test]
    fn a_blocked_run_tells_how_long_it_waits_and_what_follows() {
        let steps = [
            step(0, "build", "succeeded", &[]),
            step(1, "ask", "blocked", &["build"]),
            step(2, "deploy", "pending", &["ask", "build"]),
            step(3, "tell", "pending", &["deploy"]),
        ];
        let detail = detail("blocked", &steps);
        // The gate of an earlier generation waits no more.
        let gates = [gate(1, "expired"), gate(2, "pending")];
        let text = told(&detail, &gates, &[]);
        let expected = "Has waited 3 min for a decision about ask. 1 of 4 steps is done. After an approval deploy \
                        starts. The gate expires in 5 min.";
        assert_eq!(text, expected);
        // Nobody can decide after the expiry, even before the next sweep.
        let known = Known { detail: &detail, gates: &gates, explained: &[] };
        let late = sentences(&known, parse("2026-11-23T10:10:01Z").unwrap());
        assert!(late.starts_with("The time for a decision about ask is over. Nobody decided."), "{late}");
    }

    #[test]
    fn what_passed_before_a_retry_still_counts() {
        let detail = detail("succeeded", &[step(0, "a", "succeeded", &[])]);
        let text = told(&detail, &[gate(1, "passed"), gate(2, "passed")], &[]);
        assert!(text.starts_with("Succeeded: 2 gates passed on evidence."), "{text}");
    }

    #[test]
    fn a_failed_attempt_is_repeated_at_its_time() {
        let mut late = step(0, "lint", "ready", &[]);
        late["ready_at"] = json!("2026-11-23T10:05:30+00:00");
        let why = json!({
            "why": "", "name": "lint", "tool": "gate:lint", "handler": "gate", "status": "ready",
            "run_status": "running", "attempt": 5, "failures": 2, "max_attempts": 3, "workers_lost": 0, "blockers": 0,
            "error": null, "ready_at": null, "notify_count": 0, "lease_until": null, "parents": [], "gates": [],
        });
        let text = told(&detail("running", &[late]), &[], &[serde_json::from_value(why).unwrap()]);
        assert_eq!(text, "Tries lint again in 30 s. 2 attempts of this generation failed.");
    }

    #[test]
    fn a_step_that_is_due_waits_for_a_worker() {
        let mut due = step(0, "a\u{1b}[2J", "ready", &[]);
        due["ready_at"] = json!("2026-11-23T10:04:20+00:00");
        let detail = detail("running", &[due]);
        let known = Known { detail: &detail, gates: &[], explained: &[] };
        let text = lead(&known, parse("2026-11-23T10:05:00Z").unwrap());
        assert_eq!(text, "a\\u{1b}[2J is ready and waits for a worker (40 s)");
    }

    #[test]
    fn a_pause_has_its_age() {
        let text = told(&detail("paused", &[step(0, "a", "pending", &[])]), &[], &[]);
        assert_eq!(text, "Paused, 4 min ago. Nothing starts before somebody resumes the run.");
    }
}
