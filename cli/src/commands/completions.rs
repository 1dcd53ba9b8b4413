//! `nofx completions`: a script for a shell.

use anyhow::Result;
use clap_complete::Shell;

use crate::cli;
use crate::output;

#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bash  nofx completions bash > ~/.local/share/bash-completion/completions/nofx
  zsh   nofx completions zsh > ~/.zfunc/_nofx    (with fpath+=~/.zfunc before compinit)
  fish  nofx completions fish > ~/.config/fish/completions/nofx.fish")]
pub struct Args {
    /// The shell
    shell: Shell,
}

pub fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::command(), "nofx", &mut script);
    output::text(String::from_utf8(script)?)
}
