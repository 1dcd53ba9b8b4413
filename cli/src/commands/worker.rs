//! `nofx worker`: serves a queue on this machine, with the configuration of its environment.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Result;
use nofx_local::report::hinted;

#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub enum Queue {
    /// Gates that take longer than Lambda allows, or that need this machine's toolchain
    Gate,
}

/// Becomes the program `gate` in poll mode. Returns only if it cannot.
pub fn run(queue: Queue) -> Result<()> {
    let Queue::Gate = queue;
    if std::env::var_os("DATABASE_URL").is_none() {
        return Err(hinted(
            "DATABASE_URL is not set",
            "a worker needs the environment of a stack: eval \"$(nofx env)\"",
        ));
    }
    let program = std::env::current_exe()?.with_file_name("gate");
    let error = Command::new(&program).arg("poll").exec();
    Err(hinted(
        format!("cannot run {}: {error}", program.display()),
        "put the programs gate and gate_runner beside nofx: cargo build --bin gate --bin gate_runner",
    ))
}
