//! `nofx gate`: judges without a control plane.

mod check;
pub mod coverage;
mod coverage_report;
mod show;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Command {
    #[command(subcommand)]
    report: Option<Report>,
    #[command(flatten)]
    check: check::Args,
}

#[derive(Clone, Debug, Subcommand)]
enum Report {
    /// Judge the coverage of changed lines from reports that exist
    Coverage(coverage::Args),
}

/// `nofx gate`.
pub async fn run(command: &Command) -> Result<ExitCode> {
    match &command.report {
        Some(Report::Coverage(args)) => Ok(coverage::run(args)),
        None => check::run(&command.check).await,
    }
}
