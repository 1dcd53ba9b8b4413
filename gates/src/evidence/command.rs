//! How the dependencies were installed, how the command ended, and what it left.

use serde::{Deserialize, Serialize};

/// The installation of dependencies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Install {
    /// `none`, `stored` or `fresh`.
    pub how: String,
    /// `npm`, `pip`, `cargo` or `go`. Null if there is nothing to install.
    pub ecosystem: Option<String>,
    pub ms: u64,
}

/// How the command of the gate ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct CommandResult {
    /// Null if a signal or the timeout ended it.
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub timed_out: bool,
    pub output: Output,
}

/// What the command wrote to its standard output and standard error. Secrets are redacted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Output {
    /// The size of the whole output.
    pub bytes: u64,
    /// Its first part. Null if `tail` is all of it.
    pub head: Option<String>,
    /// Its last part.
    pub tail: String,
    /// sha256 of the whole output before it was redacted.
    pub sha256: String,
}

/// A report that the command had to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Report {
    /// Such as `junit` or `istanbul`.
    pub format: String,
    /// `stdout`, or a path.
    pub path: String,
    /// Null if it is missing.
    pub sha256: Option<String>,
    /// In bytes.
    pub size: u64,
    pub outcome: ReportOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReportOutcome {
    /// The verdict relies on it.
    Read,
    Missing,
    Unparsable,
    /// This run did not write it.
    Stale,
    /// It is about files that are not in the workspace.
    Unmatched,
}

/// The process that ran the command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Runner {
    pub version: String,
    /// Why it gave no result. Null if it gave one.
    pub error: Option<String>,
}
