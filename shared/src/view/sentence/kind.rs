//! Kinds of events, by which a timeline is filtered.

use std::fmt;
use std::str::FromStr;

/// Events that a reader looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// What went wrong. These events are of other kinds too.
    Problems,
    Steps,
    Gates,
    Artifacts,
    Models,
    Writes,
    Run,
}

impl EventKind {
    pub const ALL: [Self; 7] =
        [Self::Problems, Self::Steps, Self::Gates, Self::Artifacts, Self::Models, Self::Writes, Self::Run];

    /// Its word in an address and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Problems => "problems",
            Self::Steps => "steps",
            Self::Gates => "gates",
            Self::Artifacts => "artifacts",
            Self::Models => "models",
            Self::Writes => "writes",
            Self::Run => "run",
        }
    }

    /// Types of its events.
    pub fn types(self) -> &'static [&'static str] {
        match self {
            Self::Problems => &[
                "run.failed",
                "run.timed_out",
                "step.failed",
                "step.retrying",
                "step.repairing",
                "step.worker_lost",
                "gate.failed",
                "gate.expired",
            ],
            Self::Steps => &[
                "step.ready",
                "step.started",
                "step.succeeded",
                "step.failed",
                "step.retrying",
                "step.repairing",
                "step.worker_lost",
                "step.blocked",
                "step.skipped",
                "step.cancelled",
            ],
            Self::Gates => &[
                "gate.created",
                "gate.linked",
                "gate.approved",
                "gate.passed",
                "gate.failed",
                "gate.waived",
                "gate.reminder",
                "gate.kept",
                "gate.voided",
                "gate.expired",
                "gate.cancelled",
            ],
            Self::Artifacts => &["artifact.created"],
            Self::Models => {
                &["codegen.usage", "llm.attempt", "llm.usage", "llm.cached", "budget.exhausted", "budget.raised"]
            }
            Self::Writes => &["db_write.executed"],
            Self::Run => &[
                "run.created",
                "run.started",
                "run.blocked",
                "run.unblocked",
                "run.queued",
                "run.pause_requested",
                "run.paused",
                "run.resumed",
                "run.cancel_requested",
                "run.timed_out",
                "run.retried",
                "run.succeeded",
                "run.failed",
                "run.cancelled",
            ],
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str).join(", ");
            format!("is none of {words}")
        })
    }
}
