//! `nofx man`: man pages, one for each command.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cli;
use crate::output;

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  nofx man ~/.local/share/man/man1")]
pub struct Args {
    /// Folder for the pages; it is made if it does not exist
    dir: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    let cannot_write = || format!("cannot write to {}", args.dir.display());
    fs::create_dir_all(&args.dir).with_context(cannot_write)?;
    // clap_mangen has no templates: pages list commands as clap does.
    let command = cli::command().help_template("");
    clap_mangen::generate_to(command, &args.dir).with_context(cannot_write)?;
    output::line(format_args!("{}", args.dir.join("nofx.1").display()))
}
