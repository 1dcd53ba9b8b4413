//! Gates: what a workspace is, what its gates are, how a command runs, and how its result is judged.
//!
//! The functions `gate` and `gate_runner` and the command `nofx gate` share this crate, so that the same tree gets the
//! same verdict everywhere. It uses neither storage nor database: archives in, evidence out.
//!
//! `examine` runs one gate: `workspace` (with `unpack` and `tree`) prepares the files, `install` (with `install_cache`)
//! installs the dependencies, `process` runs commands, and `coverage` judges the changed lines. `finding` is the result.
//! `report` reads and judges what other tools write, `secrets` looks for credentials in changed lines, `redact` takes them
//! out of logs, and `mutants` tries whether tests notice a change.
//! Gates fail closed: without a workspace, a command, a lockfile or a usable report the gate fails.

mod attempt;
mod blocking;
mod config;
pub mod coverage;
mod examine;
mod finding;
mod install;
mod install_cache;
pub mod mutants;
mod package;
mod process;
pub mod redact;
pub mod report;
pub mod secrets;
pub mod snapshot;
mod tree;
mod unpack;
mod workspace;

pub use config::GateConfig;
pub use examine::{Examiner, GateKind, Request};
pub use finding::{Evidence, GateVerdict, InfraError, Reason};
pub use unpack::Limits;
pub use workspace::{Archives, StoredArchive};
