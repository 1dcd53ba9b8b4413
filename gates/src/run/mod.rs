//! Runs a workspace's command. The process that does so holds no secret: it reads one workspace and writes one bundle.

mod bundle;
mod spec;

pub use bundle::Bundle;
pub use spec::{
    CommandRun, CommandSpec, CompanionSpec, Ecosystem, Exit, Found, InstallResult, Location, Output, ReportFile,
    ReportPath, RunResult, RunSpec, Stopped, Variant,
};
