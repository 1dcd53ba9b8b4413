//! What was judged, against what, and by which definition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Severity;
use crate::snapshot::TreeDigest;

/// The definition of the gate that counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Definition {
    pub source: Source,
    /// The path of the file, or `presets`.
    pub file: String,
    /// sha256 of the whole definition, in canonical JSON.
    pub digest: String,
    /// Program and arguments. Empty for a gate that runs no command.
    pub command: Vec<String>,
    /// The reports that it must write: format and path.
    pub reports: Vec<ExpectedReport>,
    /// The numbers that it must reach, by name, such as `coverage` and `file_floor`.
    pub thresholds: BTreeMap<String, Value>,
    /// The least severity of a finding that fails the gate.
    pub severity: Severity,
}

/// Whose definition it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The base's: the change under test has no say in it.
    Base,
    /// That of the change under test, because there was no base.
    Candidate,
    /// That of the change under test, and a person approved the difference from the base's.
    Approved,
}

impl Source {
    /// As in the document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Candidate => "candidate",
            Self::Approved => "approved",
        }
    }
}

/// A report that the definition asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ExpectedReport {
    /// Such as `junit` or `istanbul`.
    pub format: String,
    /// `stdout`, or a path.
    pub path: String,
}

/// What was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Subject {
    pub tree: TreeDigest,
    /// sha256 of the archive. Null for a folder.
    pub archive: Option<String>,
}

/// What the subject was compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Base {
    /// Null if there is no base, or if a diff describes the change.
    pub tree: Option<TreeDigest>,
    /// sha256 of the archive or the diff. Null for a folder.
    pub archive: Option<String>,
    pub given_by: GivenBy,
}

impl Base {
    /// No base.
    pub fn none() -> Self {
        Self { tree: None, archive: None, given_by: GivenBy::None }
    }
}

/// Who chose the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum GivenBy {
    Plan,
    Step,
    Policy,
    /// The person who called `nofx gate`.
    Caller,
    /// There is no base.
    None,
}
