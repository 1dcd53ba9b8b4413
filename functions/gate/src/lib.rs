//! The gates `gate:typecheck`, `gate:lint` and `gate:unit`: run a workspace's own check, judge the result and keep the
//! evidence.
//!
//! `handler` is called by the worker. `examine` runs one examination: `workspace` (with `unpack` and `tree`) lays out
//! the files, `install` (with `pool`) installs the dependencies, `process` runs commands, and `coverage` judges the
//! changed lines. `finding` is the result. Everything fails closed: without a workspace, a command, a lockfile or a
//! usable report the gate fails.

mod attempt;
mod blocking;
mod config;
pub mod coverage;
mod examine;
mod finding;
mod handler;
mod install;
mod package;
mod pool;
mod process;
mod tree;
mod unpack;
mod workspace;

pub use config::GateConfig;
pub use examine::{Examiner, Gate as GateKind, Request};
pub use finding::{Evidence, GateVerdict, Reason, Trouble};
pub use handler::Gate;
pub use unpack::Limits;
pub use workspace::{Archives, Stored};
