//! States of runs, steps and gates. Terminal states absorb; only `retry` of a run leaves one.

use serde::{Deserialize, Serialize};

/// State of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// No step has started.
    Queued,
    Running,
    /// Open steps, none of them ready or running.
    Blocked,
    Paused,
    Succeeded,
    Failed,
    Cancelled,
}

/// State of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Has blockers.
    Pending,
    /// Owed a wake-up.
    Ready,
    Running,
    /// Waits for a gate of its own.
    Blocked,
    Succeeded,
    Failed,
    Skipped,
    Cancelled,
}

/// State of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateStatus {
    Pending,
    Passed,
    Failed,
    Waived,
    Expired,
    Cancelled,
}

impl RunStatus {
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl StepStatus {
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Skipped | Self::Cancelled)
    }
}
