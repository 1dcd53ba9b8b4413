//! Where a run stands: what the sentence about its future is made from.

use std::collections::BTreeMap;

use crate::domain::{ArtifactId, GateId, GateStatus, RunStatus, StepStatus, Timestamp};
use crate::view::OnPass;
use crate::view::sentence::words::{many, thousands};
use crate::view::sentence::{Part, text};

/// Names that a sentence lists. More are a number.
const NAMED: usize = 3;

/// Where a run stands.
#[derive(Debug, Clone)]
pub struct Standing<'a> {
    pub status: RunStatus,
    /// Why the run failed or was stopped, if no step failed.
    pub failure: Option<&'a str>,
    /// When somebody paused or cancelled the run, and who, if known.
    pub stopped: Option<(Option<&'a str>, &'a Timestamp)>,
    /// When the time of the run is over.
    pub deadline_at: Option<&'a Timestamp>,
    /// Since when the step that is ready for the longest time waits for a worker.
    pub ready_since: Option<&'a Timestamp>,
    /// From start to end.
    pub took_ms: Option<i64>,
    /// In the order of the plan. Of a very large run, only some.
    pub steps: Vec<StepNow<'a>>,
    pub steps_total: u64,
    /// Ordinals of parents and children.
    pub edges: &'a [(i64, i64)],
    /// Gates of every generation, because a retry keeps what passed before. Only gates of this generation are pending.
    /// Of many, only some, and then the oldest pending ones.
    pub gates: Vec<GateNow<'a>>,
    /// All of them.
    pub gates_total: u64,
    /// Those that are pending and can still be decided.
    pub gates_open: u64,
    pub artifacts_total: u64,
    /// What the run made for people.
    pub artifact: Option<(&'a str, ArtifactId)>,
}

/// A step, now.
#[derive(Debug, Clone)]
pub struct StepNow<'a> {
    pub ordinal: i64,
    pub name: &'a str,
    pub tool: &'a str,
    pub status: StepStatus,
    /// Number of the newest attempt. 0: none yet.
    pub attempt: i64,
    /// Attempts of this generation that failed.
    pub failures: i64,
    /// Attempts of this generation whose worker was lost.
    pub workers_lost: i64,
    /// Start of the first attempt of this generation, while the step is open.
    pub open_since: Option<&'a Timestamp>,
    /// Time of the next attempt, if it is in the future.
    pub next_try_at: Option<&'a Timestamp>,
    /// The message of the last error.
    pub error: Option<&'a str>,
}

/// A gate, now.
#[derive(Debug, Clone)]
pub struct GateNow<'a> {
    pub id: GateId,
    pub gate_type: &'a str,
    /// None for a gate of the run itself.
    pub step: Option<&'a str>,
    pub status: GateStatus,
    /// Whether its time is over. Nobody can decide it any more, and the next sweep ends it.
    pub is_over: bool,
    pub on_pass: OnPass,
    /// Who decided. None if evidence did.
    pub actor: Option<&'a str>,
    pub created_at: &'a Timestamp,
    pub expires_at: Option<&'a Timestamp>,
}

/// Whether people read artifacts of this type. The newest one is what the run made for them.
pub fn is_result(kind: &str) -> bool {
    matches!(kind, "text" | "code")
}

impl<'a> Standing<'a> {
    /// Steps in this state.
    pub(super) fn in_state(&self, status: StepStatus) -> Vec<&StepNow<'a>> {
        self.steps.iter().filter(|step| step.status == status).collect()
    }

    pub(super) fn count(&self, status: StepStatus) -> u64 {
        self.steps.iter().filter(|step| step.status == status).count() as u64
    }

    /// Whether all steps are known, so that numbers of them are true.
    pub(super) fn knows_all(&self) -> bool {
        self.steps.len() as u64 == self.steps_total
    }

    /// Gates that people can decide, oldest first.
    pub(super) fn open_gates(&self) -> Vec<&GateNow<'a>> {
        self.pending(false)
    }

    /// Pending gates whose time is over, oldest first.
    pub(super) fn late_gates(&self) -> Vec<&GateNow<'a>> {
        self.pending(true)
    }

    fn pending(&self, is_over: bool) -> Vec<&GateNow<'a>> {
        let pending = self.gates.iter().filter(|gate| gate.status == GateStatus::Pending && gate.is_over == is_over);
        let mut pending: Vec<_> = pending.collect();
        pending.sort_by_key(|gate| (gate.created_at.epoch_ms(), gate.id));
        pending
    }

    /// Whether all gates are known.
    pub(super) fn knows_gates(&self) -> bool {
        self.gates.len() as u64 == self.gates_total
    }

    /// `5 of 10 steps are done`. None before the first.
    pub(super) fn progress(&self) -> Option<Vec<Part<'a>>> {
        let done = self.count(StepStatus::Succeeded);
        (self.knows_all() && done > 0).then(|| {
            let are = if done == 1 { "is" } else { "are" };
            vec![text(format!("{} of {} {are} done", thousands(done), many(self.steps_total, "step")))]
        })
    }

    /// Pending steps that wait for `step` and for nothing else.
    pub(super) fn next_after(&self, name: &str) -> Vec<&StepNow<'a>> {
        let Some(step) = self.steps.iter().find(|step| step.name == name) else { return Vec::new() };
        let blockers = self.blockers();
        let children = self.edges.iter().filter(|(parent, _)| *parent == step.ordinal).map(|(_, child)| *child);
        let children: Vec<i64> = children.filter(|child| blockers.get(child) == Some(&1)).collect();
        let is_next = |step: &&StepNow<'_>| step.status == StepStatus::Pending && children.contains(&step.ordinal);
        self.steps.iter().filter(is_next).collect()
    }

    /// Steps that run after this gate without another decision, with those right behind it. What follows the decision about
    /// another gate belongs to that gate, whatever else it waits for.
    pub(super) fn reached_by(&self, gate: &GateNow<'a>) -> Vec<&StepNow<'a>> {
        let Some(own) = self.steps.iter().find(|step| Some(step.name) == gate.step) else { return Vec::new() };
        let by_ordinal: BTreeMap<i64, &StepNow<'a>> = self.steps.iter().map(|step| (step.ordinal, step)).collect();
        let mut children = BTreeMap::<i64, Vec<i64>>::new();
        for (parent, child) in self.edges {
            children.entry(*parent).or_default().push(*child);
        }
        let asks = |step: &StepNow<'_>| {
            let is_asked = |gate: &GateNow<'_>| gate.status == GateStatus::Pending && gate.step == Some(step.name);
            step.tool.starts_with("manual:") || (step.ordinal != own.ordinal && self.gates.iter().any(is_asked))
        };
        let mut open: Vec<i64> = match gate.on_pass {
            OnPass::Finish => children.get(&own.ordinal).cloned().unwrap_or_default(),
            OnPass::Resume | OnPass::Release => vec![own.ordinal],
        };
        let mut reached = BTreeMap::new();
        while let Some(ordinal) = open.pop() {
            let Some(step) = by_ordinal.get(&ordinal) else { continue };
            if reached.insert(ordinal, *step).is_none() && !asks(step) {
                open.extend(children.get(&ordinal).into_iter().flatten());
            }
        }
        reached.into_values().collect()
    }

    /// The pending step that waits for this gate and for nothing else.
    pub(super) fn step_behind(&self, gate: &GateNow<'_>) -> Option<&StepNow<'a>> {
        let step = self.steps.iter().find(|step| Some(step.name) == gate.step && step.status == StepStatus::Pending)?;
        let is_other = |other: &&GateNow<'_>| other.status == GateStatus::Pending && other.id != gate.id;
        let has_other = self.gates.iter().filter(is_other).any(|other| other.step == gate.step);
        let waits = self.blockers().get(&step.ordinal).is_some_and(|parents| *parents > 0);
        (!has_other && !waits && self.knows_all()).then_some(step)
    }

    /// How many parents of each step have not succeeded, by the step's ordinal.
    fn blockers(&self) -> BTreeMap<i64, u64> {
        let done: BTreeMap<i64, bool> =
            self.steps.iter().map(|step| (step.ordinal, step.status == StepStatus::Succeeded)).collect();
        let mut blockers = BTreeMap::<i64, u64>::new();
        for (parent, child) in self.edges {
            *blockers.entry(*child).or_default() += u64::from(!done.get(parent).copied().unwrap_or_default());
        }
        blockers
    }
}

impl<'a> StepNow<'a> {
    pub(super) fn part(&self) -> Part<'a> {
        Part::Step { name: self.name, ordinal: Some(self.ordinal) }
    }
}

impl<'a> GateNow<'a> {
    pub(super) fn part(&self) -> Part<'a> {
        Part::Gate { gate_type: self.gate_type, id: Some(self.id) }
    }
}

/// `a`, `a and b`, `a, b and c`, or `4 steps`.
pub(super) fn names<'a>(steps: &[&StepNow<'a>]) -> Vec<Part<'a>> {
    if steps.len() > NAMED {
        return vec![text(many(steps.len() as u64, "step"))];
    }
    let mut parts = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        if at > 0 {
            parts.push(text(if at + 1 == steps.len() { " and " } else { ", " }));
        }
        parts.push(step.part());
    }
    parts
}

/// A sentence of several pieces.
pub(super) fn join<const N: usize>(pieces: [Vec<Part<'_>>; N]) -> Vec<Part<'_>> {
    pieces.into_iter().flatten().collect()
}
