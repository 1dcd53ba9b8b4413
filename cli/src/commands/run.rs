//! `nofx run`: starts a run of a plan. With `--watch`, follows it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::client::api::Api;
use crate::client::submission::{self, Submission};
use crate::commands::actor::Actor;
use crate::commands::watch::{self, Follow};
use crate::output::color::command;
use crate::output::{self, Format};

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "docs/plans.md describes plans, and examples/ has some.")]
pub struct Args {
    /// File with the plan, as JSON or YAML (.yaml, .yml); - reads standard input
    file: PathBuf,
    /// Follow the run until it ends; exit with 1 unless it succeeds
    #[arg(long)]
    watch: bool,
    /// Upload this directory as the plan's workspace; in a Git repository without the files that it ignores
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// Add the files of this directory to the workspace, replacing those of the same name
    #[arg(long, value_name = "DIR", requires = "workspace")]
    overlay: Option<PathBuf>,
    /// The workspace before the change, for gates that judge the difference: the commit at which HEAD left this Git
    /// reference, or a directory
    #[arg(long, value_name = "REF|DIR")]
    base: Option<String>,
    #[command(flatten)]
    actor: Actor,
    #[command(flatten)]
    follow: Follow,
    #[command(flatten)]
    format: Format,
}

/// Prints the run's id. With `--watch`, the exit code says how it ended.
pub async fn run(api: &Api, args: &Args) -> Result<ExitCode> {
    let submission = Submission {
        file: &args.file,
        workspace: args.workspace.as_deref(),
        overlay: args.overlay.as_deref(),
        base: args.base.as_deref(),
        actor: args.actor.name(),
    };
    let run = submission::create(api, &submission).await?;
    if args.format.json {
        output::json_line(&run)?;
    } else {
        output::line(run.id)?;
    }
    if args.watch {
        return watch::follow_to_the_end(api, run.id, args.follow, args.format).await;
    }
    if !args.format.json {
        output::note(format_args!(
            "the run is {}; follow it with {}",
            run.status,
            command(format!("nofx watch {}", run.id))
        ));
    }
    Ok(ExitCode::SUCCESS)
}
