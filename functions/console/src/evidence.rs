//! What a gate stored, as far as pages show it. All text in it may come from tested code.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The version of evidence that pages can show.
const SCHEMA: &str = "nofx.gate_evidence.v2";

/// Evidence (`docs/evidence.schema.json`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Evidence {
    pub schema: String,
    pub gate: String,
    pub verdict: String,
    pub reason: Reason,
    pub started_at_ms: i64,
    pub finished_at_ms: i64,
    pub definition: Option<Definition>,
    pub subject: Option<Tree>,
    pub base: Base,
    pub locks: BTreeMap<String, String>,
    pub toolchain: BTreeMap<String, String>,
    pub sandbox: Option<Sandbox>,
    pub install: Option<Install>,
    pub command: Option<Command>,
    pub reports: Vec<Report>,
    pub findings: Findings,
    pub tests: Option<Tests>,
    pub coverage: Option<Coverage>,
    pub context: Vec<Excerpt>,
    pub integrity: Option<Listed<Weakening>>,
    pub approvals: Vec<Approval>,
    pub attachments: Vec<Attachment>,
    pub not_proved: Vec<Reason>,
    pub reused: Option<Reused>,
}

/// The document of a gate `manual:gate-change`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct GateChange {
    pub subject: ChangeSubject,
    pub weakenings: Vec<Weakening>,
}

/// What a decision is about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ChangeSubject {
    pub tree: Option<Digest>,
    pub base: Option<Digest>,
    pub difference: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Reason {
    pub code: String,
    pub message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Digest {
    pub sha1: String,
    pub sha256: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Tree {
    pub tree: Option<Digest>,
    pub archive: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Base {
    pub tree: Option<Digest>,
    pub given_by: String,
    pub origin: Option<BaseOrigin>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct BaseOrigin {
    pub repository: String,
    pub commit: String,
    pub branch: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Definition {
    pub source: String,
    pub file: String,
    pub digest: String,
    pub command: Vec<String>,
    pub thresholds: BTreeMap<String, serde_json::Value>,
    pub severity: String,
}

/// The isolation in force, as the sandbox reports it.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a report, not one state")]
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    pub level: String,
    pub own_uid: bool,
    pub namespaces: Vec<String>,
    pub network: String,
    pub landlock_abi: Option<u32>,
    pub seccomp: bool,
    pub no_new_privs: bool,
    pub capabilities_dropped: bool,
    pub limits: Limits,
    pub killed_at_end: u32,
    pub not_in_force: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    pub processes: Option<u64>,
    pub disk_bytes: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Install {
    pub how: String,
    pub ecosystem: Option<String>,
    pub ms: i64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Command {
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub timed_out: bool,
    pub output: Output,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Output {
    pub bytes: u64,
    pub head: Option<String>,
    pub tail: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Report {
    pub format: String,
    pub path: String,
    pub outcome: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Findings {
    pub by_severity: BTreeMap<String, u64>,
    pub total: u64,
    pub listed: Vec<Finding>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Finding {
    pub severity: String,
    pub tool: String,
    pub file: String,
    pub line: Option<u32>,
    pub rule: Option<String>,
    pub message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Tests {
    pub total: u64,
    pub passed: u64,
    pub failed: u64,
    pub errored: u64,
    pub skipped: u64,
    pub failures: Listed<TestFailure>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct TestFailure {
    pub suite: String,
    pub name: String,
    pub file: Option<String>,
    pub message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Coverage {
    pub reason: String,
    pub threshold: Option<f64>,
    pub ratio: Option<f64>,
    pub covered: u64,
    pub uncovered: u64,
    pub unmeasured: u64,
    pub file_count: usize,
    pub files: Vec<CoveredFile>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct CoveredFile {
    pub path: String,
    pub covered: u64,
    pub uncovered: u64,
    pub unmeasured: u64,
    pub uncovered_lines: Vec<u32>,
    pub unmeasured_lines: Vec<u32>,
}

/// Consecutive lines of a file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Excerpt {
    pub path: String,
    pub first_line: u32,
    pub lines: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Weakening {
    pub kind: String,
    pub path: String,
    pub line: Option<u32>,
    pub message: String,
    pub difference: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Approval {
    pub gate_id: String,
    pub by: String,
    pub at: String,
    pub subject: String,
    pub waived: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Attachment {
    pub name: String,
    pub size: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Reused {
    pub run_id: String,
    pub evidence: String,
}

/// A list of which the document has only the first items.
#[derive(Debug, Clone, Deserialize)]
pub struct Listed<T> {
    pub total: u64,
    pub listed: Vec<T>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { total: 0, listed: Vec::new() }
    }
}

impl Evidence {
    /// Reads evidence. `Err` says why there is nothing to show.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let evidence: Self = parse(bytes)?;
        if evidence.schema == SCHEMA {
            return Ok(evidence);
        }
        Err(format!("This page shows evidence of the version {SCHEMA}, and this document is not."))
    }
}

impl GateChange {
    /// Reads the difference that a gate asks about.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        parse(bytes)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("The document cannot be read: {error}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_documents_are_refused_in_words() {
        assert!(Evidence::read(br#"{"schema": "nofx.gate_evidence.v1"}"#).unwrap_err().contains("version"));
        assert!(Evidence::read(b"[]").is_err() && Evidence::read(b"{").unwrap_err().contains("cannot be read"));
        let newer = br#"{"schema": "nofx.gate_evidence.v2", "gate": "lint", "a_new_field": [1]}"#;
        assert_eq!(Evidence::read(newer).unwrap().gate, "lint");
    }
}
