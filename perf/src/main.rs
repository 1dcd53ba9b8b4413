//! `nofx-bench`: the benchmarks of docs/numbers.md. Each prints one JSON line to standard output. Progress and skipped
//! benchmarks go to standard error.

mod bed;
mod cost;
mod create;
mod engine;
mod figures;
mod history;
mod history_fill;
mod load;
mod restate;
mod server;
mod smoke;
mod soak;
mod stack;
mod start;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use nofx_local::checkout::Checkout;
use nofx_local::report;

use crate::server::Server;

/// Benchmarks of the control plane
#[derive(Debug, Parser)]
#[command(name = "nofx-bench")]
struct Cli {
    /// Run only this benchmark
    #[arg(long, value_enum)]
    only: Option<Bench>,
    /// Finished steps in the larger tables of `history`
    #[arg(long, env = "HISTORY", default_value_t = 5_000_000)]
    history: u64,
    /// Minutes of `soak`
    #[arg(long, env = "MINUTES", default_value_t = 20)]
    minutes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Steps per second of echo chains through the worker's entry points
    Engine,
    /// The same loads on Restate, alternating with the engine
    Restate,
    /// `POST /runs` of small and large plans
    Create,
    /// Claim, finish, list and sweep with many finished steps in the tables
    History,
    /// Time from exec to the first `next` of each function's binary
    Start,
    /// The sample plans on the local stack, with SQS
    Stack,
    /// US dollars per million steps
    Cost,
    /// Memory of the functions under ordinary and hostile requests for some minutes; runs only by name
    Soak,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<()> {
    let checkout = Checkout::find()?;
    let wanted = |bench| cli.only.is_none_or(|only| only == bench);
    if [Bench::Engine, Bench::Restate, Bench::Create, Bench::History, Bench::Cost].into_iter().any(wanted) {
        let server = Server::start(&checkout).await?;
        let done = run_on(&server, &checkout, cli).await;
        server.stop().await;
        done?;
    }
    if wanted(Bench::Start) {
        left_out(cli, Bench::Start, start::run(&checkout).await)?;
    }
    if wanted(Bench::Stack) {
        left_out(cli, Bench::Stack, stack::run(&checkout).await)?;
    }
    if cli.only == Some(Bench::Soak) {
        soak::run(&checkout, cli.minutes).await?;
    }
    Ok(())
}

/// A benchmark that cannot run here is an error if it was asked for by name, else a line of output.
fn left_out(cli: &Cli, bench: Bench, done: Result<()>) -> Result<()> {
    match done {
        Err(error) if cli.only.is_none() => {
            report::line("bench", format_args!("skipped {bench:?}: {error:#}"));
            Ok(())
        }
        done => done,
    }
}

/// The benchmarks that need a database. Each gets a new one.
async fn run_on(server: &Server, checkout: &Checkout, cli: &Cli) -> Result<()> {
    let wanted = |bench| cli.only.is_none_or(|only| only == bench);
    if wanted(Bench::Engine) {
        engine::run(server).await?;
    }
    if wanted(Bench::Restate) {
        left_out(cli, Bench::Restate, restate::run(server, checkout).await)?;
    }
    if wanted(Bench::Create) {
        create::run(server).await?;
    }
    if wanted(Bench::History) {
        history::run(server, cli.history).await?;
    }
    if wanted(Bench::Cost) {
        left_out(cli, Bench::Cost, cost::run(server, checkout).await)?;
    }
    Ok(())
}
