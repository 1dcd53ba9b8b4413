//! Runs an untrusted command with the isolation that the host offers, and reports what was in force.
//!
//! A process that runs commands calls [`init`] first in `main`, before it starts threads. [`run`] starts the same executable
//! again as a *launcher*. The launcher restricts itself, starts the command as its child, and ends when nothing of the
//! command is left:
//!
//! ```text
//! run ──socket──> guard ──> init (process 1 of its namespaces) ──> command, companions     level `namespaces`
//! run ──socket──> guard ──────────────────────────────────────> command, companions       levels `landlock`, `limits`
//! ```
//!
//! The socket carries the [`Command`] one way and events the other way. Its end is the signal to kill everything: it closes
//! when the future of `run` is dropped and when the process of `run` dies.

mod command;
mod companion;
mod error;
mod host;
mod identity;
mod launcher;
mod output;
mod report;
mod run;
mod supervisor;
mod toolchain;
mod watch;
mod wire;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;

#[cfg(target_os = "linux")]
use linux as platform;
#[cfg(not(target_os = "linux"))]
use portable as platform;

pub use command::{Command, Companion, Health, Level, Limits, Network, OutputBounds};
pub use error::SandboxError;
pub use host::{Host, Through, host};
pub use identity::{Identity, give, take};
pub use launcher::{init, set_launcher};
pub use output::Output;
pub use report::{Exit, Finished, Limit, NetworkInForce, Report};
pub use run::run;
pub use toolchain::{Toolchain, toolchain};
