//! Decisions of people about gates.

use serde::{Deserialize, Serialize};

/// What somebody decided about a pending gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Approve,
    Reject,
    /// Let it pass although it was not shown to be right; the word stays in the record.
    Waive,
}
