//! `nofx gate`: judges without a control plane.

pub mod coverage;
mod coverage_report;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Judge the coverage of changed lines from reports that exist
    Coverage(coverage::Args),
}

/// `nofx gate`.
pub fn run(command: &Command) -> ExitCode {
    match command {
        Command::Coverage(args) => coverage::run(args),
    }
}
