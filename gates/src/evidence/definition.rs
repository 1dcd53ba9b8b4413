//! What was judged, against what, and by which definition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::domain::base_origin::{self, Standing};

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
    /// That of the change under test, and a person approved or waived the difference from the base's.
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
    /// The commit that it is. Null unless the policy trusts only bases from repositories (`trusted_base: "git"`) and
    /// `workspace:git` fetched this one.
    #[serde(default)]
    pub origin: Option<BaseOrigin>,
}

impl Base {
    /// No base.
    pub fn none() -> Self {
        Self { tree: None, archive: None, given_by: GivenBy::None, origin: None }
    }
}

/// The commit that a base is, as the step that fetched it recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct BaseOrigin {
    /// The URL of the repository.
    pub repository: String,
    pub commit: String,
    /// The default branch of the repository. Null if its server did not say.
    pub branch: Option<String>,
    /// The newest commit of the branch at the time of the fetch.
    pub tip: Option<String>,
    /// What the commit is to the branch: `tip`, `merge_base`, `outdated`, `parent` or `other`.
    pub relation: Option<String>,
    /// The step that fetched it.
    pub run_id: String,
    pub step_id: String,
}

impl From<base_origin::BaseOrigin> for BaseOrigin {
    fn from(found: base_origin::BaseOrigin) -> Self {
        let (branch, tip, relation) = match found.standing {
            Some(Standing { branch, tip, is, .. }) => (Some(branch), Some(tip), Some(is.name().to_owned())),
            None => (None, None, None),
        };
        Self {
            repository: found.repository,
            commit: found.commit,
            branch,
            tip,
            relation,
            run_id: found.run_id.to_string(),
            step_id: found.step_id.to_string(),
        }
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
