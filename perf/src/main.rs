//! `nofx-bench`: the benchmarks of docs/numbers.md, one JSON line each on standard output. Progress and what was
//! left out go to standard error.

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
    /// Run this one alone
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
    /// The same loads on Restate, in turns with the engine
    Restate,
    /// `POST /runs` of small and large plans
    Create,
    /// Claim, finish, list and sweep beside many finished steps
    History,
    /// From exec to the first `next` of each function's binary
    Start,
    /// The sample plans on the local stack, SQS included
    Stack,
    /// US dollars per million steps
    Cost,
    /// Ordinary and hostile requests for minutes, and the functions' memory; only by name
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

/// What cannot run here is an error for whoever asked for it by name, and a line for whoever asked for everything.
fn left_out(cli: &Cli, bench: Bench, done: Result<()>) -> Result<()> {
    match done {
        Err(error) if cli.only.is_none() => {
            report::line("bench", format_args!("{bench:?} is left out: {error:#}"));
            Ok(())
        }
        done => done,
    }
}

/// The benchmarks that need a database, each on a fresh one.
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
