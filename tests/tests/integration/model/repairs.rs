//! The repair loops of the model.

use super::event::steps_after;
use super::machine::Machine;
use super::steps::{AttemptStatus, Status};

impl Machine {
    /// Steps that make and steps that judge have other handlers.
    pub(super) fn is_echo(&self, step: usize) -> bool {
        !self.loops.iter().any(|repairs| repairs.of.maker == step || repairs.of.gates.contains(&step))
    }

    /// Steps have just failed. Each must be within a loop that can repair one of them; nothing else of the run may have failed. Of loops
    /// within each other the outer one repairs.
    pub(super) fn repair(&mut self, failed: &[usize]) {
        if self.failed || self.cancelled {
            return;
        }
        let parents: Vec<_> = self.steps.iter().map(|step| step.parents.clone()).collect();
        let of = |at: &usize| &self.loops[*at].of;
        let able: Vec<usize> = (0..self.loops.len())
            .filter(|at| of(at).gates.iter().any(|gate| failed.contains(gate)))
            .filter(|at| self.steps[of(at).maker].status == Status::Succeeded)
            .filter(|at| self.loops[*at].count + 1 < of(at).max_attempts)
            .collect();
        let again: Vec<usize> = able.iter().flat_map(|at| steps_after(&parents, of(at).maker)).collect();
        let is_lost = |(at, step): (usize, &super::steps::Step)| {
            matches!(step.status, Status::Failed | Status::Skipped) && !(failed.contains(&at) && again.contains(&at))
        };
        if self.steps.iter().enumerate().any(is_lost) {
            return;
        }
        let is_within = |inner: &usize, outer: &usize| {
            inner != outer && steps_after(&parents, of(outer).maker).contains(&of(inner).maker)
        };
        let outer: Vec<usize> =
            able.iter().filter(|at| !able.iter().any(|other| is_within(at, other))).copied().collect();
        for at in outer {
            self.loops[at].count += 1;
        }
        self.reopen_gates(&again);
        for at in again {
            let step = &mut self.steps[at];
            if step.status == Status::Running {
                step.end_attempt(AttemptStatus::Cancelled);
            }
            step.start_again();
        }
    }
}
