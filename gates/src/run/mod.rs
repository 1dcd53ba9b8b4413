//! Runs a workspace's command. The process that does so holds no secret: it reads one workspace and writes one bundle.

mod bundle;
mod collect;
mod runner;
mod spec;

pub use bundle::{Bundle, MAX_BYTES as MAX_BUNDLE_BYTES};
pub use runner::{Executor, RunnerSettings, must_end};
pub use spec::{
    CommandRun, CommandSpec, CompanionSpec, Exit, Found, InstallResult, Job, Limit, Location, Output, ReportFile,
    ReportPath, RunAnswer, RunResult, RunSpec, Stopped, Variant,
};

pub(crate) use spec::millis;
