//! The result of a gate: the verdict, its reason, and the evidence.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::coverage::CoverageEvidence;

/// The reason for a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// snake_case, for programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Reason {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A failure outside the workspace. The gate has no verdict, and a retry may succeed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct InfraError {
    pub code: &'static str,
    pub message: String,
}

impl InfraError {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Work on another thread panicked or was cancelled.
    #[expect(clippy::needless_pass_by_value, reason = "map_err passes the error by value")]
    pub fn task_failed(error: tokio::task::JoinError) -> Self {
        Self::new("gate_stopped", format!("the gate stopped because of a defect in NOFX: {error}"))
    }
}

impl From<std::io::Error> for InfraError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            Self::new("disk_full", "the disk of the gate is full")
        } else {
            Self::new("work_folder_unavailable", format!("the work folder of the gate cannot be used: {error}"))
        }
    }
}

/// Why a gate stops early.
#[derive(Debug)]
pub enum ExamineError {
    /// The gate fails, for this reason.
    GateFailed(Reason),
    Infra(InfraError),
}

impl From<Reason> for ExamineError {
    fn from(reason: Reason) -> Self {
        Self::GateFailed(reason)
    }
}

impl From<InfraError> for ExamineError {
    fn from(error: InfraError) -> Self {
        Self::Infra(error)
    }
}

impl From<std::io::Error> for ExamineError {
    fn from(error: std::io::Error) -> Self {
        Self::Infra(error.into())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GateVerdict {
    Passed,
    Failed,
}

/// The evidence of a gate. Times are in milliseconds, digests sha256 in lower-case hex.
#[derive(Debug, Clone, Serialize)]
pub struct Evidence {
    /// `nofx.gate_evidence.v1`.
    pub schema: &'static str,
    /// `typecheck`, `lint` or `unit`.
    pub gate: String,
    pub tool: String,
    pub run_id: String,
    pub step_id: String,
    pub attempt: u32,
    pub verdict: GateVerdict,
    pub reason: Reason,
    /// The command and the text of its script, if there is one.
    pub command: Option<Vec<String>>,
    pub script: Option<String>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub timed_out: bool,
    /// Since the Unix epoch.
    pub started_at_ms: u64,
    pub finished_at_ms: u64,
    pub install_ms: Option<u64>,
    pub run_ms: Option<u64>,
    /// `none`, `stored` or `fresh`.
    pub install: Option<&'static str>,
    pub output_bytes: u64,
    /// The first 8 KiB, if the tail is not the whole output.
    pub output_head: Option<String>,
    /// The last 64 KiB. Paths in the workspace are relative to it.
    pub output_tail: String,
    pub digests: Digests,
    pub toolchain: Toolchain,
    pub capabilities: Capabilities,
    /// `gate:unit` only.
    pub coverage: Option<CoverageEvidence>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Digests {
    /// Of the stored archive, or of the files of the default workspace.
    pub workspace: Option<String>,
    /// `archive` or `tree`.
    pub workspace_kind: Option<&'static str>,
    pub base: Option<String>,
    /// `archive`, `tree` or `diff`.
    pub base_kind: Option<&'static str>,
    pub package_lock: Option<String>,
    pub output: Option<String>,
    /// By path in the workspace.
    pub coverage_reports: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Toolchain {
    pub node: String,
    pub npm: String,
    /// Operating system and processor.
    pub platform: String,
}

/// How the command was isolated. A policy can require more.
#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a report, not one state")]
pub struct Capabilities {
    pub sandbox: &'static str,
    pub network: &'static str,
    pub environment: &'static str,
    pub process_group: bool,
    /// The gate finds and kills processes that leave the group.
    pub detached_processes_killed: bool,
    pub memory_limited: bool,
    /// The command runs as the user of the gate.
    pub own_user: bool,
}

impl Capabilities {
    /// The capabilities of this build on this operating system.
    pub fn current() -> Self {
        Self {
            sandbox: "none",
            network: "open",
            environment: "allow_list",
            process_group: true,
            detached_processes_killed: cfg!(target_os = "linux"),
            memory_limited: false,
            own_user: false,
        }
    }
}

/// The lines of an output that mention an error or a failure, else its first lines.
pub fn error_lines(output: &str) -> String {
    const LINES: usize = 6;
    const CHARACTERS: usize = 600;
    let is_error = |line: &str| {
        let lower = line.to_lowercase();
        lower.contains("error") || lower.contains("fail") || line.trim_start().starts_with(['×', '✖', '✗'])
    };
    let lines: Vec<&str> = output.lines().map(str::trim_end).filter(|line| !line.trim().is_empty()).collect();
    let selected: Vec<&str> = match lines.iter().position(|line| is_error(line)) {
        None => lines.into_iter().take(LINES).collect(),
        Some(first) => {
            // A linter prints the file's name and its errors below it, so take the line before the first error too.
            let before = first.checked_sub(1).and_then(|at| lines.get(at)).copied();
            before.into_iter().chain(lines.iter().copied().filter(|line| is_error(line))).take(LINES).collect()
        }
    };
    let text = selected.join("\n");
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_shows_the_linters_file_and_errors() {
        let output = "\nsrc/a.ts\n  2:30  error  Unexpected any\n  3:16  error  Expected ===\n\n✖ 2 problems\n";
        assert_eq!(
            error_lines(output),
            "src/a.ts\n  2:30  error  Unexpected any\n  3:16  error  Expected ===\n✖ 2 problems"
        );
    }

    #[test]
    fn an_output_without_errors_is_cut_to_its_first_lines() {
        assert_eq!(error_lines("one\ntwo\n"), "one\ntwo");
        assert_eq!(error_lines(""), "");
    }

    #[test]
    fn a_long_message_is_cut() {
        assert!(error_lines(&"error é".repeat(1000)).chars().count() <= 601);
    }
}
