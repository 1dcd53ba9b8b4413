//! `nofx submit`: posts a plan, and shows its progress if asked to.

use std::path::PathBuf;

use anyhow::Result;

use crate::client::api::Api;
use crate::client::submission::{self, Submission};
use crate::commands::watch::watch;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A file with `{"plan": {...}}`
    file: PathBuf,
    /// Show its progress until it ends; exit with 1 unless it succeeded
    #[arg(long)]
    watch: bool,
    /// The directory the plan works on
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// A directory whose files are put over the workspace
    #[arg(long, value_name = "DIR", requires = "workspace")]
    overlay: Option<PathBuf>,
    /// The directory before the change, for gates that judge a difference
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
}

/// `nofx submit`; true unless it watched the run fail.
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
    eprintln!("{id} {}; follow it with: nofx watch {id}", run.status);
    Ok(true)
}
