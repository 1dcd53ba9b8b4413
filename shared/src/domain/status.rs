//! States of runs, steps and gates. Terminal states absorb; only `retry` of a run leaves one.

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
    /// Open steps, none of them ready or running.
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
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Running, Self::Blocked, Self::Paused, Self::Succeeded, Self::Failed, Self::Cancelled];

    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// Shows a state as the word that stands for it in JSON and in the database.
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
    fn a_state_is_shown_as_its_word() {
        assert_eq!(format!("{} {:<9}|", RunStatus::Cancelled, StepStatus::Ready), "cancelled ready    |");
    }
}
