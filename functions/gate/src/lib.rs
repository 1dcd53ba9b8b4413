//! The gates `gate:typecheck`, `gate:lint` and `gate:unit`: run the workspace's own check, judge the result and store
//! the evidence.
//!
//! The worker calls `handler`. `examine` runs one gate: `workspace` (with `unpack` and `tree`) prepares the files,
//! `install` (with `install_cache`) installs the dependencies, `process` runs commands, and `coverage` judges the
//! changed lines. `finding` is the result. Gates fail closed: without a workspace, a command, a lockfile or a usable
//! report the gate fails.

mod attempt;
mod blocking;
mod config;
pub mod coverage;
mod examine;
mod finding;
mod handler;
mod install;
mod install_cache;
mod package;
mod process;
mod tree;
mod unpack;
mod workspace;

pub use config::GateConfig;
pub use examine::{Examiner, GateKind, Request};
pub use finding::{Evidence, GateVerdict, InfraError, Reason};
pub use handler::Gate;
pub use unpack::Limits;
pub use workspace::{Archives, StoredArchive};
