//! The gates `gate:typecheck`, `gate:lint` and `gate:unit`: run a workspace's own check, judge it, keep the evidence.
//!
//! `handler` is the worker's side, `examine` one examination; below it `workspace` (with `unpack` and `tree`) lays out what
//! is judged, `install` (with `pool`) brings the dependencies, `process` runs commands, `coverage` judges changed lines, `finding` is what
//! comes out. Everything fails closed: without a workspace, a command, a lock or a usable report there is no pass.

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
