//! The state of a run, from its events alone: what `nofx watch` shows.

use std::collections::HashMap;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Map, Value};
use shared::domain::budget_gate::WaitsFor;
use shared::domain::{GateId, RunStatus, StepStatus};
use shared::view::{Event, RunDetail};

use super::time;

/// A run and its steps, as far as the events tell.
#[derive(Debug)]
pub struct Board {
    pub status: RunStatus,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
    /// In the order of the plan.
    pub steps: Vec<StepState>,
    by_name: HashMap<String, usize>,
    /// Gates that wait for a decision, oldest first.
    pub gates: Vec<PendingGate>,
    /// Why the run failed, if no step failed.
    pub failure: String,
}

#[derive(Debug)]
pub struct StepState {
    pub name: String,
    pub tool: String,
    pub status: StepStatus,
    pub depends_on: Vec<String>,
    /// Of the attempt.
    pub attempt: u32,
    pub started_at: Option<SystemTime>,
    pub ended_at: Option<SystemTime>,
    /// When a failed attempt is repeated.
    pub retry_at: Option<SystemTime>,
    pub tokens: u64,
    pub rows: Option<u64>,
    /// Why it failed or waits: the first line.
    pub reason: String,
}

/// A gate that waits for a person or for money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingGate {
    pub id: GateId,
    pub kind: String,
    pub reason: String,
    /// Of a gate `budget`.
    pub waits_for: Option<WaitsFor>,
}

/// Fields of payloads. `docs/events.md` describes them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    attempt: Option<u32>,
    error: Option<Message>,
    failure: Option<Message>,
    delay_ms: Option<u64>,
    gate_id: Option<GateId>,
    gate_type: Option<String>,
    subject: Option<Map<String, Value>>,
    reason: Option<String>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    rows: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    message: String,
}

impl Board {
    /// All steps of a run, before its first event. `detail` has all of them.
    pub fn new(detail: &RunDetail) -> Self {
        let steps: Vec<StepState> = detail.steps.iter().map(StepState::new).collect();
        let by_name = steps.iter().enumerate().map(|(at, step)| (step.name.clone(), at)).collect();
        Self {
            status: RunStatus::Queued,
            started_at: None,
            finished_at: None,
            steps,
            by_name,
            gates: Vec::new(),
            failure: String::new(),
        }
    }

    /// Records an event. Returns the step that it ended, if it ended one.
    pub fn apply(&mut self, event: &Event) -> Option<usize> {
        let payload: Payload = serde_json::from_str(event.payload.get()).unwrap_or_default();
        let at = time::time(&event.timestamp);
        let step = event.step.as_ref().and_then(|name| self.by_name.get(name)).copied();
        let (noun, verb) = event.kind.split_once('.')?;
        match (noun, step) {
            ("run", _) => self.apply_to_run(verb, &payload, at),
            ("gate", _) => self.apply_to_gate(verb, payload),
            ("step", Some(index)) => return self.steps[index].apply(verb, &payload, at).then_some(index),
            ("codegen", Some(index)) => {
                let tokens = payload.input_tokens.unwrap_or(0).saturating_add(payload.output_tokens.unwrap_or(0));
                self.steps[index].tokens = self.steps[index].tokens.saturating_add(tokens);
            }
            ("db_write", Some(index)) => self.steps[index].rows = payload.rows,
            _ => {}
        }
        None
    }

    fn apply_to_run(&mut self, verb: &str, payload: &Payload, at: Option<SystemTime>) {
        let status = match verb {
            "created" | "queued" => RunStatus::Queued,
            "started" | "resumed" | "unblocked" => RunStatus::Running,
            "blocked" => RunStatus::Blocked,
            "paused" => RunStatus::Paused,
            "succeeded" => RunStatus::Succeeded,
            "failed" => RunStatus::Failed,
            "cancelled" => RunStatus::Cancelled,
            "retried" => {
                self.steps.iter_mut().for_each(StepState::retry);
                self.failure.clear();
                self.finished_at = None;
                RunStatus::Running
            }
            _ => return,
        };
        self.status = status;
        if self.started_at.is_none() && status == RunStatus::Running {
            self.started_at = at;
        }
        if status.is_terminal() {
            self.finished_at = at;
            self.failure = first_line(payload.failure.as_ref().map_or("", |failure| &failure.message));
        }
    }

    fn apply_to_gate(&mut self, verb: &str, payload: Payload) {
        let Some(id) = payload.gate_id else { return };
        self.gates.retain(|gate| gate.id != id);
        if verb == "created" {
            let reason = first_line(payload.reason.as_deref().unwrap_or_default());
            let kind = payload.gate_type.unwrap_or_default();
            let waits_for = WaitsFor::of(&kind, payload.subject.as_ref());
            self.gates.push(PendingGate { id, kind, reason, waits_for });
        }
    }

    /// How many steps are in a state.
    pub fn count(&self, status: StepStatus) -> usize {
        self.steps.iter().filter(|step| step.status == status).count()
    }
}

impl StepState {
    fn new(step: &shared::view::Step) -> Self {
        Self {
            name: step.name.clone(),
            tool: step.tool.clone(),
            status: StepStatus::Pending,
            depends_on: step.depends_on.clone(),
            attempt: 0,
            started_at: None,
            ended_at: None,
            retry_at: None,
            tokens: 0,
            rows: None,
            reason: String::new(),
        }
    }

    /// Records an event of the step. True if it ended.
    fn apply(&mut self, verb: &str, payload: &Payload, at: Option<SystemTime>) -> bool {
        let reason = payload.error.as_ref().map(|error| first_line(&error.message));
        match verb {
            "ready" => self.status = StepStatus::Ready,
            "started" => {
                (self.status, self.retry_at, self.ended_at) = (StepStatus::Running, None, None);
                self.attempt = payload.attempt.unwrap_or(self.attempt + 1);
                self.started_at = at;
                self.reason.clear();
            }
            "retrying" => {
                self.status = StepStatus::Ready;
                let delay = payload.delay_ms.map(std::time::Duration::from_millis);
                self.retry_at = at.zip(delay).and_then(|(at, delay)| at.checked_add(delay));
            }
            "worker_lost" => {
                self.status = StepStatus::Ready;
                "its worker was lost".clone_into(&mut self.reason);
            }
            "blocked" => self.status = StepStatus::Blocked,
            "succeeded" => self.status = StepStatus::Succeeded,
            "failed" => self.status = StepStatus::Failed,
            "skipped" => self.status = StepStatus::Skipped,
            "cancelled" => self.status = StepStatus::Cancelled,
            _ => {}
        }
        if let Some(reason) = reason {
            self.reason = reason;
        }
        let has_ended = self.has_ended();
        if has_ended {
            self.ended_at = at;
        }
        has_ended
    }

    /// A retry of the run starts what did not succeed again.
    fn retry(&mut self) {
        if self.has_ended() && self.status != StepStatus::Succeeded {
            self.status = StepStatus::Pending;
            (self.started_at, self.ended_at, self.retry_at) = (None, None, None);
            self.reason.clear();
        }
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.status, StepStatus::Succeeded | StepStatus::Failed | StepStatus::Skipped | StepStatus::Cancelled)
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
pub mod samples {
    use serde_json::{Value, json};

    use super::*;

    pub const GATE: &str = "0193c0de-0000-7000-8000-00000000000a";

    /// A run with these steps, each `(name, tool, parents)`.
    pub fn board(steps: &[(&str, &str, &[&str])]) -> Board {
        let step = |(name, tool, parents): &(&str, &str, &[&str])| {
            json!({
                "id": "0193c0de-0000-7000-8000-000000000002", "name": name, "tool": tool, "status": "pending",
                "inputs": {}, "outputs": null, "error": null, "attempt": 0, "blockers": 0, "depends_on": parents,
                "ready_at": null, "started_at": null, "finished_at": null,
            })
        };
        let detail = json!({
            "run": {
                "id": "0193c0de-0000-7000-8000-000000000001", "status": "queued", "goal": "g", "plan": null,
                "plan_digest": "a", "generation": 1, "failure": null, "timeout_s": null, "deadline_at": null,
                "created_at": "2026-11-23T10:00:00+00:00", "started_at": null, "paused_at": null, "finished_at": null,
            },
            "steps": steps.iter().map(step).collect::<Vec<_>>(), "artifacts": [],
        });
        Board::new(&serde_json::from_value(detail).unwrap())
    }

    /// An event in a second after 10 o'clock.
    pub fn event(second: u32, step: Option<&str>, kind: &str, payload: &Value) -> Event {
        let (minute, second) = (second / 60, second % 60);
        let event = json!({
            "id": 1, "run_id": "0193c0de-0000-7000-8000-000000000001", "seq": 1, "step_id": null, "step": step,
            "type": kind, "payload": payload, "timestamp": format!("2026-11-23T10:{minute:02}:{second:02}.000000+00:00"),
        });
        serde_json::from_str(&event.to_string()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::samples::{GATE, board, event};
    use super::*;

    const NOTHING: Value = Value::Null;

    #[test]
    fn a_step_goes_through_its_attempts() {
        let mut board = board(&[("lint", "gate:lint", &[])]);
        let mut apply = |second, kind: &str, payload: Value| board.apply(&event(second, Some("lint"), kind, &payload));
        assert_eq!(apply(0, "step.ready", NOTHING), None);
        assert_eq!(apply(1, "step.started", json!({"attempt": 1})), None);
        let error = json!({"code": "x", "message": "one\ntwo"});
        assert_eq!(apply(2, "step.retrying", json!({"attempt": 1, "error": error, "delay_ms": 2000})), None);
        assert_eq!(apply(4, "step.started", json!({"attempt": 2})), None);
        assert_eq!(apply(4, "codegen.usage", json!({"input_tokens": 10, "output_tokens": 5})), None);
        assert_eq!(apply(5, "db_write.executed", json!({"rows": 7})), None);
        assert_eq!(apply(9, "step.failed", json!({"error": error, "attempt": 2})), Some(0));
        let step = &board.steps[0];
        assert_eq!((step.status, step.attempt, step.tokens, step.rows), (StepStatus::Failed, 2, 15, Some(7)));
        assert_eq!((step.reason.as_str(), step.retry_at), ("one", None));
        let took = step.ended_at.unwrap().duration_since(step.started_at.unwrap()).unwrap();
        assert_eq!(took.as_secs(), 5);
    }

    #[test]
    fn a_decided_gate_waits_no_more() {
        let mut board = board(&[("ask", "manual:x", &[])]);
        let gate = json!({"gate_id": GATE, "gate_type": "manual:x", "reason": "may we?\nplease"});
        board.apply(&event(0, None, "run.started", &NOTHING));
        board.apply(&event(1, Some("ask"), "gate.created", &gate));
        board.apply(&event(1, None, "run.blocked", &NOTHING));
        assert_eq!((board.status, board.gates.len()), (RunStatus::Blocked, 1));
        assert_eq!((board.gates[0].kind.as_str(), board.gates[0].reason.as_str()), ("manual:x", "may we?"));
        board.apply(&event(2, Some("ask"), "gate.passed", &gate));
        board.apply(&event(2, None, "run.unblocked", &NOTHING));
        assert_eq!((board.status, board.gates.len()), (RunStatus::Running, 0));
    }

    #[test]
    fn a_retry_keeps_what_succeeded() {
        let mut board = board(&[("a", "echo", &[]), ("b", "echo", &[])]);
        for (step, kind) in [("a", "step.succeeded"), ("b", "step.failed")] {
            board.apply(&event(1, Some(step), kind, &NOTHING));
        }
        board.apply(&event(1, None, "run.failed", &json!({"failure": {"code": "c", "message": "m"}})));
        assert!(board.status.is_terminal() && board.failure == "m" && board.finished_at.is_some());
        board.apply(&event(9, None, "run.retried", &json!({"generation": 2})));
        assert_eq!([board.steps[0].status, board.steps[1].status], [StepStatus::Succeeded, StepStatus::Pending]);
        assert_eq!((board.status, board.finished_at), (RunStatus::Running, None));
    }
}
