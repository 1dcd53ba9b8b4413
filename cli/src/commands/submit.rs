//! `nofx submit`: posts a plan. With `--watch`, prints its events.

use std::path::PathBuf;

use anyhow::Result;

use crate::client::api::Api;
use crate::client::submission::{self, Submission};
use crate::commands::watch::watch;

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "docs/plans.md describes plans, and examples/ has some.")]
pub struct Args {
    /// File with the plan, as JSON or YAML (.yaml, .yml); - reads standard input
    file: PathBuf,
    /// Print the events of the run until it ends; exit with 1 unless it succeeds
    #[arg(long)]
    watch: bool,
    /// Upload this directory as the plan's workspace
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// Add the files of this directory to the workspace, replacing those of the same name
    #[arg(long, value_name = "DIR", requires = "workspace")]
    overlay: Option<PathBuf>,
    /// Upload this directory as the workspace before the change, for gates that judge the difference
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
}

/// `nofx submit`. With `--watch`, false unless the run succeeded.
pub async fn run(api: &Api, args: &Args) -> Result<bool> {
    let submission = Submission {
        file: &args.file,
        workspace: args.workspace.as_deref(),
        overlay: args.overlay.as_deref(),
        base: args.base.as_deref(),
    };
    let run = submission::create(api, &submission).await?;
    let id = run.id.to_string();
    println!("{id}");
    if args.watch {
        return watch(api, &id).await;
    }
    eprintln!("{id} {}; watch it with: nofx watch {id}", run.status);
    Ok(true)
}
