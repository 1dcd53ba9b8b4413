//! The model of a run: its facts, and the states derived from them.

use std::collections::{BTreeMap, BTreeSet};

use super::History;
use super::event::{Event, Finish, Loop, To};
use super::gates::{Gate, GateStatus};
use super::steps::{AttemptStatus, Status, Step};

/// A run, its steps and its gates.
pub struct Machine {
    pub steps: Vec<Step>,
    pub gates: Vec<Gate>,
    pub(super) loops: Vec<Repairs>,
    pub generation: u32,
    pub(super) paused: bool,
    pub(super) cancelled: bool,
    /// A gate of the run did not pass, or the run timed out.
    pub(super) failed: bool,
}

/// A repair loop, and how often it has repaired in this generation.
pub struct Repairs {
    pub of: Loop,
    pub count: u32,
}

/// The answer to an event: its results, and the steps that it must wake.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Answer {
    pub results: Vec<String>,
    pub wakes: BTreeSet<usize>,
}

/// The state that is visible from outside.
#[derive(Debug, PartialEq, Eq)]
pub struct VisibleState {
    pub run: String,
    pub generation: u32,
    pub steps: Vec<VisibleStep>,
    /// States by name and generation, in alphabetical order.
    pub gates: BTreeMap<(String, u32), Vec<String>>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct VisibleStep {
    pub status: String,
    pub failures: u32,
    pub workers_lost: u32,
    pub attempts: Vec<String>,
}

impl Answer {
    pub fn of(result: &str) -> Self {
        Self { results: vec![result.to_owned()], wakes: BTreeSet::new() }
    }
}

impl Machine {
    pub fn create(history: &History) -> (Self, BTreeSet<usize>) {
        let steps = history.parents.iter().enumerate();
        let steps = steps.map(|(at, parents)| Step::new(parents.clone(), history.asks == Some(at))).collect();
        let mut machine = Self {
            steps,
            gates: Vec::new(),
            loops: history.loops.iter().map(|of| Repairs { of: of.clone(), count: 0 }).collect(),
            generation: 1,
            paused: false,
            cancelled: false,
            failed: false,
        };
        machine.release();
        let ready = machine.ready();
        (machine, ready)
    }

    pub fn apply(&mut self, event: &Event) -> Answer {
        match event {
            Event::Claim(steps) => self.claim(steps),
            Event::Finish { ends, continues } => self.finish(ends, *continues),
            Event::LeaseOver(step) => self.on_step(*step, Status::Running, |step| step.lease_over = true),
            Event::DelayOver(step) => self.on_step(*step, Status::Ready, |step| step.delayed = false),
            Event::SweepLeases => {
                let dead: Vec<usize> = (0..self.steps.len()).filter(|&at| self.steps[at].is_dead()).collect();
                let ready_before = self.ready();
                self.lose_workers(&dead);
                self.woken(ready_before)
            }
            Event::GateCreate { name, step, expires } => self.gate_create(name, *step, *expires),
            Event::Decide { name, generation, decision } => self.decide(name, *generation, *decision),
            Event::GatesDue => self.gates_due(),
            Event::SweepGates => self.sweep_gates(),
            Event::SweepWakeUps => Answer { wakes: self.owed(), ..Answer::default() },
            Event::Undeliverable(step) => self.undeliverable(*step),
            Event::Pause => self.pause(),
            Event::Resume => self.resume(),
            Event::Cancel => self.cancel(),
            Event::Retry => self.retry(),
            Event::RunTimeout => self.time_out(),
        }
    }

    /// Derived in this order: the end, then requests of people, then the steps.
    pub fn status(&self) -> &'static str {
        let any = |wanted: &[Status]| self.steps.iter().any(|step| wanted.contains(&step.status));
        let open = any(&[Status::Pending, Status::Ready, Status::Running, Status::Blocked]);
        if self.cancelled {
            "cancelled"
        } else if !open && self.failing() {
            "failed"
        } else if !open && !self.gates.iter().any(|gate| gate.step.is_none() && gate.is_pending()) {
            "succeeded"
        } else if self.paused {
            "paused"
        } else if !any(&[Status::Ready, Status::Running]) {
            "blocked"
        } else if self.steps.iter().any(|step| !step.attempts.is_empty()) {
            "running"
        } else {
            "queued"
        }
    }

    pub fn ended(&self) -> bool {
        matches!(self.status(), "succeeded" | "failed" | "cancelled")
    }

    pub fn visible_state(&self) -> VisibleState {
        let mut gates = BTreeMap::<_, Vec<String>>::new();
        for gate in &self.gates {
            gates.entry(gate.key()).or_default().push(gate.status.word().to_owned());
        }
        for states in gates.values_mut() {
            states.sort();
        }
        VisibleState {
            run: self.status().to_owned(),
            generation: self.generation,
            steps: self.steps.iter().map(Step::visible).collect(),
            gates,
        }
    }

    /// The end of the attempt `back` numbers before the newest one of a step.
    pub fn finish_of(&self, step: usize, back: u32, to: To) -> Finish {
        let newest = u32::try_from(self.steps[step].attempts.len()).unwrap();
        // A verdict is final.
        let is_judge = self.loops.iter().any(|repairs| repairs.of.gates.contains(&step));
        let to = if is_judge && matches!(to, To::Retry { .. }) { To::Failed } else { to };
        Finish { step, attempt: newest.saturating_sub(back), to, gate: self.next_gate(step) }
    }

    /// Whether a step or the run itself failed for good. Then no step starts or waits.
    pub(super) fn failing(&self) -> bool {
        self.failed || self.steps.iter().any(|step| step.status == Status::Failed)
    }

    /// Makes steps ready whose parents have all succeeded and that no pending gate blocks.
    pub(super) fn release(&mut self) {
        for at in 0..self.steps.len() {
            let free = self.steps[at].parents.iter().all(|&parent| self.steps[parent].status == Status::Succeeded)
                && !self.gates.iter().any(|gate| gate.blocks(at));
            if self.steps[at].status == Status::Pending && free {
                self.steps[at].make_ready(false);
            }
        }
    }

    /// After a final failure: skips steps that have not started, and cancels pending gates.
    pub(super) fn close(&mut self) {
        for step in &mut self.steps {
            if matches!(step.status, Status::Pending | Status::Ready | Status::Blocked) {
                step.status = Status::Skipped;
            }
        }
        self.cancel_gates();
    }

    /// Fences every open step.
    fn fence(&mut self) {
        for step in &mut self.steps {
            if step.status == Status::Running {
                step.end_attempt(AttemptStatus::Cancelled);
            }
            if step.status.is_open() {
                step.status = Status::Cancelled;
            }
        }
        self.cancel_gates();
    }

    fn cancel_gates(&mut self) {
        self.gates.iter_mut().filter(|gate| gate.is_pending()).for_each(|gate| gate.status = GateStatus::Cancelled);
    }

    pub(super) fn ready(&self) -> BTreeSet<usize> {
        (0..self.steps.len()).filter(|&at| self.steps[at].status == Status::Ready).collect()
    }

    /// The ready steps that are owed a wake-up. None in a paused run.
    fn owed(&self) -> BTreeSet<usize> {
        if self.paused { BTreeSet::new() } else { self.ready() }
    }

    /// Wakes the steps that were not ready before.
    pub(super) fn woken(&self, ready_before: BTreeSet<usize>) -> Answer {
        Answer { wakes: self.owed().difference(&ready_before).copied().collect(), ..Answer::default() }
    }

    fn pause(&mut self) -> Answer {
        match (self.ended(), self.paused) {
            (true, _) => Answer::of("conflict"),
            (false, true) => Answer::of("unchanged"),
            (false, false) => {
                self.paused = true;
                Answer::of("paused")
            }
        }
    }

    fn resume(&mut self) -> Answer {
        match (self.ended(), self.paused) {
            (true, _) => Answer::of("conflict"),
            (false, false) => Answer::of("unchanged"),
            (false, true) => {
                self.paused = false;
                Answer { wakes: self.ready(), ..Answer::of("resumed") }
            }
        }
    }

    fn cancel(&mut self) -> Answer {
        match self.status() {
            "cancelled" => Answer::of("unchanged"),
            "succeeded" | "failed" => Answer::of("conflict"),
            _ => {
                self.cancelled = true;
                self.fence();
                Answer::of("cancelled")
            }
        }
    }

    fn time_out(&mut self) -> Answer {
        if !self.ended() {
            self.failed = true;
            self.fence();
        }
        Answer::default()
    }

    fn retry(&mut self) -> Answer {
        if !matches!(self.status(), "failed" | "cancelled") {
            return Answer::of("conflict");
        }
        (self.paused, self.cancelled, self.failed) = (false, false, false);
        self.recreate_gates();
        self.generation += 1;
        for step in self.steps.iter_mut().filter(|step| step.status != Status::Succeeded) {
            step.start_again();
        }
        self.loops.iter_mut().for_each(|repairs| repairs.count = 0);
        self.release();
        Answer { wakes: self.ready(), ..Answer::of("retried") }
    }
}
