//! Why a gate fails or has no verdict.

use nofx_sandbox::SandboxError;
use serde::Serialize;

/// Nobody knows whether something of a command still runs. See `run::must_end`.
pub(crate) const LAUNCHER_DIED: &str = "launcher_died";

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

impl From<SandboxError> for ExamineError {
    fn from(error: SandboxError) -> Self {
        let message = error.to_string();
        match error {
            SandboxError::TooWeak { .. } => Reason::new("sandbox_too_weak", message).into(),
            SandboxError::Invalid(_) => Reason::new("command_not_started", message).into(),
            // Something of the command may still run, so the process must end.
            SandboxError::LauncherDied(_) | SandboxError::Unkillable(_) => {
                InfraError::new(LAUNCHER_DIED, message).into()
            }
            _ => InfraError::new("sandbox_failed", message).into(),
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
