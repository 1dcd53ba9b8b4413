//! Decisions about gates.

use serde::{Deserialize, Serialize};

/// A person's decision about a pending gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Approve,
    Reject,
    /// Passes the gate without evidence. The record says that it was waived.
    Waive,
}
