//! The gates of the model: before a step, of a blocked step, and of the run.

use shared::domain::gate::Decision;

use super::machine::{Answer, Machine};
use super::steps::Status;

/// The name of the gate of a step that asks. One step of a run asks, so the name is unique in a generation.
const APPROVAL: &str = "approval:echo";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateStatus {
    Pending,
    Passed,
    Failed,
    Waived,
    Expired,
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPass {
    Finish,
    Resume,
    /// The step or run that it blocks may continue.
    Release,
}

#[derive(Debug, Clone)]
pub struct Gate {
    pub name: String,
    pub generation: u32,
    /// None for a gate of the run itself.
    pub step: Option<usize>,
    pub status: GateStatus,
    pub on_pass: OnPass,
    pub expires: bool,
    pub overdue: bool,
    /// A repair has asked it again.
    pub replaced: bool,
}

impl GateStatus {
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Waived => "waived",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Gate {
    pub fn is_pending(&self) -> bool {
        self.status == GateStatus::Pending
    }

    pub fn key(&self) -> (String, u32) {
        (self.name.clone(), self.generation)
    }

    /// Whether the gate must pass before the step can be claimed.
    pub fn blocks(&self, step: usize) -> bool {
        self.step == Some(step) && self.on_pass == OnPass::Release && self.is_pending()
    }
}

impl Machine {
    pub fn pending_gates(&self) -> impl Iterator<Item = usize> {
        (0..self.gates.len()).filter(|&at| self.gates[at].is_pending())
    }

    /// An unused gate name. It is unique even if several steps create gates in one event.
    pub fn next_gate(&self, step: usize) -> String {
        let creator = if step == usize::MAX { "outside".to_owned() } else { format!("step{step}") };
        format!("manual:{creator}-{}", self.gates.len())
    }

    /// `POST /gates`: before a step that has not started, or before the end of a run that may still succeed.
    pub(super) fn gate_create(&mut self, name: &str, step: Option<usize>, expires: bool) -> Answer {
        if self.ended() || self.failing() {
            return Answer::of("conflict run");
        }
        if let Some(step) = step {
            if !matches!(self.steps[step].status, Status::Pending | Status::Ready) {
                return Answer::of("conflict step");
            }
            self.steps[step].status = Status::Pending;
        }
        self.push_gate(name, step, OnPass::Release, expires);
        Answer::of("created")
    }

    pub(super) fn block_on_gate(&mut self, step: usize, name: &str, resume: bool, expires: bool) {
        self.push_gate(name, Some(step), if resume { OnPass::Resume } else { OnPass::Finish }, expires);
    }

    /// The step waits until people approve it. What they decide stands in later generations, because its inputs stay the same.
    pub(super) fn ask(&mut self, step: usize) {
        self.steps[step].status = Status::Blocked;
        self.push_gate(APPROVAL, Some(step), OnPass::Resume, false);
    }

    pub(super) fn is_approved(&self, step: usize) -> bool {
        let passed = [GateStatus::Passed, GateStatus::Waived];
        self.gates.iter().any(|gate| gate.name == APPROVAL && gate.step == Some(step) && passed.contains(&gate.status))
    }

    fn push_gate(&mut self, name: &str, step: Option<usize>, on_pass: OnPass, expires: bool) {
        self.gates.push(Gate {
            name: name.to_owned(),
            generation: self.generation,
            step,
            status: GateStatus::Pending,
            on_pass,
            expires,
            overdue: false,
            replaced: false,
        });
    }

    /// Decides a gate if it is pending and has not expired.
    pub(super) fn decide(&mut self, name: &str, generation: u32, decision: Decision) -> Answer {
        // The newest of that name: a repair asks a gate again under its name.
        let named = |gate: &Gate| gate.name == name && gate.generation == generation;
        let gate = self.gates.iter().rposition(named).expect("a gate of that name");
        if !self.gates[gate].is_pending() || self.gates[gate].overdue {
            return Answer::of("conflict");
        }
        let ready_before = self.ready();
        match decision {
            Decision::Approve => self.pass(gate, GateStatus::Passed),
            Decision::Waive => self.pass(gate, GateStatus::Waived),
            Decision::Reject => self.fail_gate(gate, GateStatus::Failed),
        }
        Answer { wakes: self.woken(ready_before).wakes, ..Answer::of("decided") }
    }

    fn pass(&mut self, gate: usize, status: GateStatus) {
        self.gates[gate].status = status;
        match (self.gates[gate].on_pass, self.gates[gate].step) {
            (OnPass::Finish, Some(step)) => self.steps[step].status = Status::Succeeded,
            (OnPass::Resume, Some(step)) => self.steps[step].make_ready(false),
            _ => {}
        }
        self.release();
    }

    /// A gate that does not pass fails its step, or the run.
    fn fail_gate(&mut self, gate: usize, status: GateStatus) {
        self.gates[gate].status = status;
        match self.gates[gate].step {
            Some(step) => self.steps[step].status = Status::Failed,
            None => self.failed = true,
        }
        self.close();
    }

    pub(super) fn gates_due(&mut self) -> Answer {
        for gate in self.gates.iter_mut().filter(|gate| gate.is_pending() && gate.expires) {
            gate.overdue = true;
        }
        Answer::default()
    }

    pub(super) fn sweep_gates(&mut self) -> Answer {
        // All overdue gates expire together, before the consequences of one cancel the others.
        let overdue: Vec<usize> = self.pending_gates().filter(|&at| self.gates[at].overdue).collect();
        for &gate in &overdue {
            self.gates[gate].status = GateStatus::Expired;
        }
        for gate in overdue {
            self.fail_gate(gate, GateStatus::Expired);
        }
        Answer::default()
    }

    /// A repair of these steps: what they wait for is cancelled, and what clients asked before them is asked again.
    pub(super) fn reopen_gates(&mut self, steps: &[usize]) {
        let mut asked = Vec::new();
        for gate in self.gates.iter_mut().filter(|gate| gate.step.is_some_and(|step| steps.contains(&step))) {
            let is_clients = gate.on_pass == OnPass::Release && !gate.replaced;
            let counts = matches!(gate.status, GateStatus::Pending | GateStatus::Passed | GateStatus::Waived);
            if is_clients && counts {
                asked.push(Gate {
                    generation: self.generation,
                    status: GateStatus::Pending,
                    overdue: false,
                    ..gate.clone()
                });
                gate.replaced = true;
            }
            if gate.is_pending() {
                gate.status = GateStatus::Cancelled;
            }
        }
        self.gates.extend(asked);
    }

    /// On retry, creates gates from `POST /gates` that did not pass again. Steps create their own gates again.
    pub(super) fn recreate_gates(&mut self) {
        let unpassed = [GateStatus::Failed, GateStatus::Expired, GateStatus::Cancelled];
        let new_gates: Vec<Gate> = self
            .gates
            .iter()
            .filter(|gate| gate.generation == self.generation && gate.on_pass == OnPass::Release)
            .filter(|gate| unpassed.contains(&gate.status) && !gate.replaced)
            .filter(|gate| gate.step.is_none_or(|step| self.steps[step].status != Status::Succeeded))
            .map(|gate| Gate {
                generation: self.generation + 1,
                status: GateStatus::Pending,
                overdue: false,
                ..gate.clone()
            })
            .collect();
        self.gates.extend(new_gates);
    }
}
