//! Runs a workspace's command. The process that does so holds no secret: it reads one workspace and writes one bundle.

mod audit;
mod bundle;
mod collect;
mod command;
mod convert;
mod runner;
mod settings;
mod spec;

pub use bundle::{Bundle, MAX_BYTES as MAX_BUNDLE_BYTES};
pub use runner::{Executor, must_end};
pub use settings::RunnerSettings;
pub use spec::{
    CommandRun, CommandSpec, CompanionSpec, Exit, Found, InstallResult, Job, Limit, Location, Output, ReportFile,
    ReportPath, RunAnswer, RunResult, RunSpec, Stopped, Variant,
};

pub(crate) use spec::millis;
