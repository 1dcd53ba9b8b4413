//! The steps of the model: claims, finishes and lost workers.

use std::collections::BTreeSet;

use super::event::{Finish, To};
use super::machine::{Answer, Machine, VisibleStep};

/// How many workers a step may lose. The next lost worker fails it.
const MAX_WORKERS_LOST: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Pending,
    Ready,
    Running,
    Blocked,
    Succeeded,
    Failed,
    Skipped,
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptStatus {
    Running,
    Succeeded,
    Failed,
    Blocked,
    Lost,
    Cancelled,
}

pub struct Step {
    pub parents: Vec<usize>,
    /// People must approve it before it starts.
    pub asks: bool,
    pub status: Status,
    pub attempts: Vec<AttemptStatus>,
    pub failures: u32,
    pub workers_lost: u32,
    /// The step is running, but its lease has ended.
    pub lease_over: bool,
    /// Ready, but only after a delay.
    pub delayed: bool,
}

impl Status {
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Ready | Self::Running | Self::Blocked)
    }
}

impl To {
    /// The attempt's status for this outcome.
    fn recorded(self) -> AttemptStatus {
        match self {
            Self::Succeeded => AttemptStatus::Succeeded,
            Self::Failed | Self::Retry { .. } => AttemptStatus::Failed,
            Self::Blocked { .. } => AttemptStatus::Blocked,
        }
    }
}

impl Step {
    pub fn new(parents: Vec<usize>, asks: bool) -> Self {
        Self {
            parents,
            asks,
            status: Status::Pending,
            attempts: Vec::new(),
            failures: 0,
            workers_lost: 0,
            lease_over: false,
            delayed: false,
        }
    }

    pub fn visible(&self) -> VisibleStep {
        VisibleStep {
            status: format!("{:?}", self.status).to_lowercase(),
            failures: self.failures,
            workers_lost: self.workers_lost,
            attempts: self.attempts.iter().map(|attempt| format!("{attempt:?}").to_lowercase()).collect(),
        }
    }

    pub fn is_dead(&self) -> bool {
        self.status == Status::Running && self.lease_over
    }

    pub fn make_ready(&mut self, delayed: bool) {
        self.status = Status::Ready;
        self.delayed = delayed;
    }

    pub fn end_attempt(&mut self, how: AttemptStatus) {
        *self.attempts.last_mut().expect("a running step has an attempt") = how;
        self.lease_over = false;
    }

    /// Starts the next generation: failures count from 0 again, attempt numbers continue.
    pub fn start_again(&mut self) {
        self.status = Status::Pending;
        self.failures = 0;
        self.workers_lost = 0;
    }

    fn start(&mut self) {
        self.status = Status::Running;
        self.attempts.push(AttemptStatus::Running);
        self.lease_over = false;
    }
}

impl Machine {
    pub(super) fn on_step(&mut self, step: usize, status: Status, change: impl Fn(&mut Step)) -> Answer {
        if self.steps[step].status == status {
            change(&mut self.steps[step]);
        }
        Answer::default()
    }

    /// A batch of deliveries. A running step is claimed again once its lease is over.
    pub(super) fn claim(&mut self, steps: &[usize]) -> Answer {
        if self.paused || self.ended() {
            return Answer::default();
        }
        let dead: Vec<usize> = steps.iter().copied().filter(|&at| self.steps[at].is_dead()).collect();
        self.lose_workers(&dead);
        let mut answer = Answer::default();
        for &at in steps {
            if self.steps[at].status != Status::Ready || self.steps[at].delayed {
                continue;
            }
            if self.steps[at].asks && !self.is_approved(at) {
                self.ask(at);
                continue;
            }
            self.steps[at].start();
            answer.results.push(format!("{at} attempt {}", self.steps[at].attempts.len()));
        }
        answer.results.sort();
        answer
    }

    pub(super) fn lose_workers(&mut self, dead: &[usize]) {
        let failing = self.failing();
        for &at in dead {
            let step = &mut self.steps[at];
            step.end_attempt(AttemptStatus::Lost);
            step.workers_lost += 1;
            if step.workers_lost > MAX_WORKERS_LOST || failing {
                step.status = Status::Failed;
            } else {
                step.make_ready(false);
            }
        }
        if self.failing() {
            self.close();
        }
    }

    pub(super) fn finish(&mut self, ends: &[Finish], continues: bool) -> Answer {
        let ready_before = self.ready();
        let failing = self.failing();
        let mut done = vec![false; ends.len()];
        for (end, done) in ends.iter().zip(&mut done) {
            let step = &self.steps[end.step];
            if step.status == Status::Running && end.attempt as usize == step.attempts.len() {
                *done = true;
                self.end(end, failing);
            }
        }
        // An invocation does not go on with a run of which a step fails.
        let continues = continues && !self.failing();
        let ended = ends.iter().zip(&done).filter(|(_, done)| **done).map(|(end, _)| end.step);
        self.repair(&ended.filter(|step| self.steps[*step].status == Status::Failed).collect::<Vec<_>>());
        self.release();
        if self.failing() {
            self.close();
        }
        let claimed = if continues { self.continue_with_children(ends, &done, &ready_before) } else { Vec::new() };
        let mut answer = self.woken(ready_before);
        answer.results.extend(claimed);
        for (end, done) in ends.iter().zip(done) {
            answer.results.push(format!("{} {}", end.step, if done { "finished" } else { self.not_owned(end) }));
            if !done {
                answer.wakes.extend(self.owed_by(end));
            }
        }
        answer.results.sort();
        answer
    }

    /// Claims as many of the children that became ready and ask nobody as steps succeeded, in the order of the plan.
    fn continue_with_children(
        &mut self,
        ends: &[Finish],
        done: &[bool],
        ready_before: &BTreeSet<usize>,
    ) -> Vec<String> {
        let succeeded: Vec<usize> = ends
            .iter()
            .zip(done)
            .filter(|(end, done)| **done && end.to == To::Succeeded)
            .map(|(end, _)| end.step)
            .collect();
        if self.paused {
            return Vec::new();
        }
        let children: Vec<usize> = self
            .ready()
            .into_iter()
            .filter(|at| !self.steps[*at].asks && self.is_echo(*at))
            .filter(|at| {
                !ready_before.contains(at) && self.steps[*at].parents.iter().any(|parent| succeeded.contains(parent))
            })
            .take(succeeded.len())
            .collect();
        let claim = |&at: &usize| {
            self.steps[at].start();
            format!("{at} attempt {}", self.steps[at].attempts.len())
        };
        children.iter().map(claim).collect()
    }

    /// Finishes an attempt that owns its step. In a failing run no step is retried and none waits.
    fn end(&mut self, end: &Finish, failing: bool) {
        if let To::Blocked { resume, expires } = end.to {
            self.block_on_gate(end.step, &end.gate, resume, expires);
        }
        let step = &mut self.steps[end.step];
        step.end_attempt(end.to.recorded());
        match end.to {
            To::Succeeded => step.status = Status::Succeeded,
            To::Failed | To::Retry { .. } => {
                step.failures += 1;
                match end.to {
                    To::Retry { delayed } if !failing => step.make_ready(delayed),
                    _ => step.status = Status::Failed,
                }
            }
            To::Blocked { .. } if failing => step.status = Status::Skipped,
            To::Blocked { .. } => step.status = Status::Blocked,
        }
    }

    /// The answer to a finish without ownership: repeated or stale.
    fn not_owned(&self, end: &Finish) -> &'static str {
        match self.attempt(end) {
            Some(recorded) if recorded == end.to.recorded() => "repeated",
            _ => "stale",
        }
    }

    /// The first answer may have been lost, so a repeated one contains its wake-ups again.
    fn owed_by(&self, end: &Finish) -> Vec<usize> {
        use AttemptStatus::{Blocked, Failed, Succeeded};
        if !matches!(self.attempt(end), Some(Succeeded | Failed | Blocked)) || self.paused {
            return Vec::new();
        }
        let is_concerned = |at: &usize| *at == end.step || self.steps[*at].parents.contains(&end.step);
        self.ready().into_iter().filter(is_concerned).collect()
    }

    fn attempt(&self, end: &Finish) -> Option<AttemptStatus> {
        let index = (end.attempt as usize).checked_sub(1)?;
        self.steps[end.step].attempts.get(index).copied()
    }

    pub(super) fn undeliverable(&mut self, step: usize) -> Answer {
        if self.steps[step].status == Status::Ready && !self.paused {
            self.steps[step].status = Status::Failed;
            self.close();
        }
        Answer::default()
    }
}
