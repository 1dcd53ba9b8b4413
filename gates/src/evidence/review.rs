//! What a reader has to weigh: weakened checks, decisions of people, and where the rest of the evidence is.

use serde::{Deserialize, Serialize};

use crate::integrity;

/// A way in which the change weakens the checks themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Weakening {
    /// Such as `protected_changed`, `test_deleted` or `ignore_comment_added`.
    pub kind: String,
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// For people.
    pub message: String,
    /// The exact difference, as a unified diff. It may be cut; the message then says how much is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
}

impl From<integrity::Weakening> for Weakening {
    fn from(found: integrity::Weakening) -> Self {
        let left_out = found.difference.as_ref().map_or(0, |difference| difference.left_out);
        let more = if left_out > 0 {
            format!(" ({left_out} more lines of the difference are not shown)")
        } else {
            String::new()
        };
        Self {
            kind: found.kind.name().to_owned(),
            path: found.path,
            line: found.line,
            message: format!("{}{more}", found.message),
            difference: found.difference.map(|difference| difference.text),
        }
    }
}

/// A decision of a person that the verdict relies on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Approval {
    pub gate_id: String,
    /// Who decided.
    pub by: String,
    /// RFC 3339.
    pub at: String,
    /// sha256 of the difference that the person saw.
    pub subject: String,
    /// Whether the person waived the question: then nobody approved the change.
    #[serde(default)]
    pub waived: bool,
}

/// A part of the evidence with a document of its own: the whole log, all findings, coverage of each line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Attachment {
    pub name: String,
    /// Null if `nofx gate` judged a checkout.
    pub artifact_id: Option<String>,
    pub sha256: String,
    /// In bytes.
    pub size: u64,
}
