//! Gates: what a workspace is, what its gates are, how a command runs, and how its result is judged.
//!
//! The functions `gate` and `gate_runner` and the command `nofx gate` share this crate, so that the same tree gets the
//! same verdict everywhere. It uses neither storage nor database: archives in, evidence out.
//!
//! In reading order: `snapshot` hashes the files of a workspace, `archive`, `unpack`, `edit`, `file_set` and `patch` write them.
//! `definition` says which gates a workspace has, `integrity` how a change weakens them. `judge` judges one gate: it has
//! `run` run the command, in the sandbox and with the `dependencies` that the lockfile pins, and reads the `report`s and
//! the `coverage` of changed lines. `evidence` is the result, `attestation` its signature.
//! `dependencies` decides what a workspace may install, installs it in the sandbox and apart from the tested code, keeps
//! it, and shows it. `report` reads and judges what other tools write, `secrets` looks for credentials in changed lines,
//! `redact` takes them out of logs, and `mutants` tries whether tests notice a change.
//!
//! Without a workspace, a command, a lockfile or a usable report the gate fails.

pub mod archive;
mod attempt;
pub mod attestation;
mod blocking;
pub mod coverage;
pub mod definition;
pub mod dependencies;
pub mod edit;
pub mod evidence;
pub mod file_set;
mod finding;
pub mod integrity;
pub mod judge;
pub mod mutants;
pub mod patch;
pub mod path;
pub mod redact;
pub mod report;
pub mod run;
pub mod secrets;
pub mod snapshot;
mod unpack;

pub use archive::MAX_PACKED_BYTES;
pub use attempt::{Attempt, CancelOnDrop};
pub use finding::{ExamineError, InfraError, Reason};
pub use unpack::{Limits, WorkspaceError, unpack};
