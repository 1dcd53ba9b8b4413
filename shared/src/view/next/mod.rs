//! What happens next in a run or with a step, for people: a sentence, its reasons, and what a reader can do first. The console shows it
//! above everything else, the command line in `why`.

mod ended;
mod open;
mod standing;
mod step;

pub use standing::{GateNow, Standing, StepNow, is_result};
pub use step::{AskedNow, ParentNow, StepNext, StepStanding, next_of_step};

use crate::domain::{ArtifactId, GateId, RunStatus};
use crate::view::sentence::{Part, Symbol, Tone};

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next<'a> {
    pub symbol: Symbol,
    pub tone: Tone,
    /// A sentence without a full stop.
    pub lead: Vec<Part<'a>>,
    /// Why it failed. It follows the sentence after a colon.
    pub error: Option<&'a str>,
    /// Sentences that explain it, each without its full stop.
    pub more: Vec<Vec<Part<'a>>>,
    /// What a reader can do, the first thing first.
    pub actions: Vec<Action<'a>>,
}

/// What a reader can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// Decide about a gate.
    Decide(GateId),
    /// Look at the step that failed.
    Look {
        step: &'a str,
        ordinal: i64,
    },
    /// Open what the run made.
    Open {
        name: &'a str,
        id: ArtifactId,
    },
    Resume,
    Retry,
}

/// What happens next in a run. Depends on nothing but its argument.
pub fn next<'a>(run: &Standing<'a>) -> Next<'a> {
    match run.status {
        RunStatus::Queued | RunStatus::Running => open::running(run),
        RunStatus::Blocked => open::blocked(run),
        RunStatus::Paused => open::paused(run),
        RunStatus::Succeeded => ended::succeeded(run),
        RunStatus::Failed => ended::failed(run),
        RunStatus::Cancelled => ended::cancelled(run),
    }
}

impl<'a> Next<'a> {
    fn new(symbol: Symbol, tone: Tone, lead: Vec<Part<'a>>) -> Self {
        Self { symbol, tone, lead, error: None, more: Vec::new(), actions: Vec::new() }
    }
}

#[cfg(test)]
mod next_tests;
