//! States of runs, steps and gates. Only `retry` of a run leaves a terminal state.

use std::fmt;

use serde::{Deserialize, Serialize};

/// State of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// No step has started.
    Queued,
    Running,
    /// It has open steps, but none is ready or running.
    Blocked,
    Paused,
    Succeeded,
    Failed,
    Cancelled,
}

/// State of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// It has blockers.
    Pending,
    /// It waits for a worker.
    Ready,
    Running,
    /// It waits for its own gate.
    Blocked,
    Succeeded,
    Failed,
    Skipped,
    Cancelled,
}

/// State of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
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

/// Displays a state as in JSON and in the database.
macro_rules! display_as_word {
    ($($status:ty),+) => {
        $(impl fmt::Display for $status {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.serialize(f)
            }
        })+
    };
}

display_as_word!(RunStatus, StepStatus, GateStatus);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_displayed_as_in_json() {
        assert_eq!(format!("{} {:<9}|", RunStatus::Cancelled, StepStatus::Ready), "cancelled ready    |");
    }
}
