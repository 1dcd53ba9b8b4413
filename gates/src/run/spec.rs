//! What a judge asks of a runner, and what the runner answers. Both are JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nofx_sandbox::Level;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dependencies::Ecosystem;

/// A request to a runner. It holds no secret: archive and bundle are named by paths, or by URLs that somebody else has
/// signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The workspace, a tar.gz.
    pub archive: Location,
    /// sha256 of the archive, in lower-case hex.
    pub archive_sha256: String,
    /// Where the runner puts its bundle.
    pub bundle: Location,
    pub job: Job,
}

/// A runner's answer: its bundle is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAnswer {
    /// Of the bundle, in lower-case hex.
    pub sha256: String,
    pub size_bytes: u64,
}

/// One command, and the copies of a workspace to run it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Installations are never shared between tenants.
    pub tenant: String,
    pub command: CommandSpec,
    /// The package manager whose dependencies the command needs.
    pub ecosystem: Option<Ecosystem>,
    /// Run no command of the workspace, but ask the package manager for known vulnerabilities of the locked packages.
    pub audit: bool,
    /// The copies of the workspace to run the command in, one after the other. Without any, the runner only says what it
    /// would run the command with: its toolchain and its sandbox.
    pub variants: Vec<Variant>,
    /// Time for everything, in milliseconds.
    pub timeout_ms: u64,
}

impl Job {
    /// The question what the runner would run this job with.
    #[must_use]
    pub fn probe(&self) -> Self {
        Self { variants: Vec::new(), ..self.clone() }
    }

    /// Whether it only asks, so that the runner needs no workspace.
    pub fn is_probe(&self) -> bool {
        self.variants.is_empty()
    }
}

/// Bytes that the runner reads or writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    File(PathBuf),
    /// An `https` URL with its signature, for one object and one method. `http` only on the loopback interface.
    Url {
        url: String,
        headers: BTreeMap<String, String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    pub argv: Vec<String>,
    /// Relative to the workspace; empty for its root.
    pub directory: String,
    pub environment: BTreeMap<String, String>,
    /// Programs that run beside the command, such as stubs of other services.
    pub companions: Vec<CompanionSpec>,
    pub reports: Vec<ReportPath>,
    /// Whether the command may reach the network.
    pub network: bool,
    /// The weakest isolation that the gate accepts.
    pub minimum_sandbox: Level,
    /// Of one run of the command, in milliseconds.
    pub timeout_ms: u64,
}

/// A program that the sandbox starts before the command and ends after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanionSpec {
    pub name: String,
    pub argv: Vec<String>,
    /// Relative to the workspace; empty for its root.
    pub directory: String,
    pub environment: BTreeMap<String, String>,
    /// The variable that tells it and the command its port.
    pub port_variable: String,
    /// A path that answers 2xx over HTTP once it is ready. Without it, a TCP connection is enough.
    pub health_path: Option<String>,
    /// In milliseconds.
    pub start_timeout_ms: u64,
}

/// Where a command writes a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportPath {
    /// What the command writes to standard output. Standard error is then the rest of its log.
    Stdout,
    /// In the folder that the variable `NOFX_REPORTS` names. The runner makes it for this run.
    Fresh(String),
    /// In the workspace. The runner removes it before the run.
    Workspace(String),
}

/// A copy of the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    pub name: String,
    /// Files to replace, with their new text.
    pub edits: BTreeMap<String, String>,
}

/// What a runner did. The judge treats it as untrusted: where no sandbox holds it, tested code can forge it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Version of the runner.
    pub runner: String,
    /// Versions by program.
    pub toolchain: BTreeMap<String, String>,
    /// The name of the strongest isolation that the host offers. Only of a probe.
    #[serde(default)]
    pub sandbox: String,
    pub install: Option<InstallResult>,
    /// In the order of the variants. Shorter if the runner stopped.
    pub runs: Vec<CommandRun>,
    /// Milliseconds by phase.
    pub timings_ms: BTreeMap<String, u64>,
    /// Why the runner stopped early.
    pub stopped: Option<Stopped>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallResult {
    pub ecosystem: Ecosystem,
    /// `stored` if an earlier installation was used, else `fresh`.
    pub how: String,
    pub ms: u64,
}

/// One run of the command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandRun {
    pub variant: String,
    /// Folder of the workspace during the run.
    pub root: String,
    pub exit: Exit,
    pub ms: u64,
    pub output: Output,
    /// In the order of the command's reports. One path with a pattern can give several.
    pub reports: Vec<ReportFile>,
    /// What isolated the command, as the sandbox reports it.
    pub sandbox: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    TimedOut,
    /// Killed because it took too much of this.
    OverLimit(Limit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    Memory,
    Disk,
}

/// Standard output and standard error as one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub bytes: u64,
    /// Of the whole output, in lower-case hex.
    pub sha256: String,
    /// The first bytes, if the tail does not include them.
    pub head: Option<String>,
    pub tail: String,
    /// The entry of the bundle with the start of the output, up to the runner's limit.
    pub entry: Option<String>,
}

/// What the runner found at a report's path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportFile {
    /// Index in the command's reports.
    pub report: usize,
    /// As in the command's reports, with patterns resolved.
    pub path: String,
    pub found: Found,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// The entry of the bundle that holds the report.
    File {
        entry: String,
    },
    Missing,
    /// It was written before the command started.
    Stale,
    /// It is a link, a folder or too large, or one of its folders is a link.
    Refused {
        why: String,
    },
}

/// Why a runner stopped before the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// snake_case, for programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// The workspace is not at fault, so that a retry may succeed.
    pub retryable: bool,
}

/// A duration as specifications, results and evidence have it.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
