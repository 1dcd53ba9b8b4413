//! Lines of the judged tree around what was found, so that a reader needs no checkout.

use serde::{Deserialize, Serialize};

/// Consecutive lines of a file of the judged tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Excerpt {
    pub path: String,
    /// The number of the first line, from 1.
    pub first_line: u32,
    /// Without line breaks. Secrets are redacted, and long lines are cut.
    pub lines: Vec<String>,
}

impl Excerpt {
    /// Whether it shows this line.
    pub fn has(&self, line: u32) -> bool {
        let at = line.checked_sub(self.first_line).and_then(|at| usize::try_from(at).ok());
        at.is_some_and(|at| at < self.lines.len())
    }
}
