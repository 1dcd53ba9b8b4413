//! Conversions to what a result has: exits and output of the sandbox, times.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nofx_sandbox as sandbox;

use super::spec::{Exit, Limit, Output, millis};
use crate::finding::Reason;

/// Fails if the command did not start.
pub fn exit_of(exit: sandbox::Exit) -> Result<Exit, Reason> {
    Ok(match exit {
        sandbox::Exit::Code(code) => Exit::Code(code),
        sandbox::Exit::Signal(signal) => Exit::Signal(signal),
        sandbox::Exit::TimedOut => Exit::TimedOut,
        sandbox::Exit::OverLimit(sandbox::Limit::Memory) => Exit::OverLimit(Limit::Memory),
        sandbox::Exit::OverLimit(sandbox::Limit::Disk) => Exit::OverLimit(Limit::Disk),
        sandbox::Exit::CompanionFailed { name, message } => {
            return Err(Reason::new("stub_failed", format!("the stub {name} did not start: {message}")));
        }
        sandbox::Exit::NotStarted { message } => {
            return Err(Reason::new("command_not_started", format!("the command cannot start: {message}")));
        }
    })
}

/// Paths in the workspace are shown relative to it.
pub fn shown(output: sandbox::Output, workspace: &Path, entry: Option<String>) -> Output {
    let folder = format!("{}/", workspace.display());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&folder, "");
    let (head, tail) = match output.omitted_bytes() {
        0 => (None, text(&[output.head, output.tail].concat())),
        _ => (Some(text(&output.head)), text(&output.tail)),
    };
    Output { bytes: output.bytes, sha256: output.sha256, head, tail, entry }
}

pub fn report_path_error(error: &io::Error) -> Reason {
    Reason::new("report_unreadable", format!("the reports cannot be collected: {error}"))
}

/// The time until a deadline.
pub fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Adds to the time of a phase.
pub fn add(timings: &mut BTreeMap<String, u64>, phase: &str, took: Duration) {
    *timings.entry(phase.to_owned()).or_default() += millis(took);
}
