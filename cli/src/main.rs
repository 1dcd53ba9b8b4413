use std::process::ExitCode;

use nofx::cli::Cli;
use nofx::output::error;

fn main() -> ExitCode {
    // If this process was started as a launcher of `nofx gate`, it runs the command here and never returns.
    nofx_sandbox::init();
    start(Cli::read())
}

#[tokio::main]
async fn start(cli: Cli) -> ExitCode {
    cli.run().await.unwrap_or_else(|error| error::report(&error))
}
