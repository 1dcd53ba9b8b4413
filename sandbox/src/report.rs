//! The end of a command, and what isolated it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::{Level, Limits};
use crate::host::Through;
use crate::output::Output;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    TimedOut,
    /// The launcher killed it because it exceeded a limit.
    OverLimit(Limit),
    /// The command did not start, because this companion did not.
    CompanionFailed {
        name: String,
        message: String,
    },
    /// The command's program could not be started.
    NotStarted {
        message: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    Memory,
    Disk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkInForce {
    /// Internet sockets are refused.
    None,
    /// A loopback of its own and nothing else.
    PrivateLoopback,
    /// The network of the host.
    Open,
}

/// What was in force while the command ran. The launcher writes it from the results of its calls, before the command starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)]
pub struct Report {
    pub level: Level,
    /// What made the namespaces.
    pub through: Option<Through>,
    pub uid: u32,
    /// The uid belongs to this command alone.
    pub own_uid: bool,
    /// `user`, `pid`, `mount`, `network`, `ipc`, `uts`, `cgroup`.
    pub namespaces: Vec<String>,
    pub network: NetworkInForce,
    /// The version of Landlock's interface, if a ruleset restricts the command.
    pub landlock_abi: Option<u32>,
    pub seccomp: bool,
    pub no_new_privs: bool,
    /// No capability is left in any set.
    pub capabilities_dropped: bool,
    pub limits: Limits,
    /// Limits that the launcher measures from time to time, by their fields. The kernel enforces the others.
    pub measured_limits: Vec<String>,
    /// Processes that still ran when the command ended. All were killed.
    pub killed_at_end: u32,
    /// What was asked for but is not in force, in words.
    pub not_in_force: Vec<String>,
}

/// The result of a command. Nothing of it runs any more.
#[derive(Debug)]
pub struct Finished {
    pub exit: Exit,
    pub output: Output,
    /// From the start of the command to the end of its last process.
    pub duration: Duration,
    pub report: Report,
}
