//! `nofx-bench`: the benchmarks of docs/numbers.md. Each prints one JSON line to standard output. Progress and skipped
//! benchmarks go to standard error.

mod cost;
mod create;
mod engine;
mod gate;
mod history;
mod history_fill;
mod lambda;
mod load;
mod restate;
mod server;
mod smoke;
mod soak;
mod stack;
mod start;
mod stats;
mod token;

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
    /// What a gate costs besides its command
    Gate,
    /// Verification of one credential of each kind, without the database
    Token,
    /// US dollars per million steps
    Cost,
    /// Memory of the functions under ordinary and hostile requests for some minutes. Runs only by name
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
    let is_selected = |bench| cli.only.is_none_or(|only| only == bench);
    if [Bench::Engine, Bench::Restate, Bench::Create, Bench::History, Bench::Cost].into_iter().any(is_selected) {
        let server = Server::start(&checkout).await?;
        let result = run_on(&server, &checkout, cli).await;
        server.stop().await;
        result?;
    }
    if is_selected(Bench::Start) {
        skip_unavailable(cli, Bench::Start, start::run(&checkout).await)?;
    }
    if is_selected(Bench::Gate) {
        skip_unavailable(cli, Bench::Gate, Box::pin(gate::run(&checkout)).await)?;
    }
    if is_selected(Bench::Token) {
        token::run().await?;
    }
    if is_selected(Bench::Stack) {
        skip_unavailable(cli, Bench::Stack, stack::run(&checkout).await)?;
    }
    if cli.only == Some(Bench::Soak) {
        soak::run(&checkout, cli.minutes).await?;
    }
    Ok(())
}

/// Reports a benchmark that cannot run here as skipped. It is an error if `--only` names the benchmark.
fn skip_unavailable(cli: &Cli, bench: Bench, result: Result<()>) -> Result<()> {
    match result {
        Err(error) if cli.only.is_none() => {
            report::line("bench", format_args!("skipped {bench:?}: {error:#}"));
            Ok(())
        }
        result => result,
    }
}

/// Runs the benchmarks that need a database. Each gets a new one.
async fn run_on(server: &Server, checkout: &Checkout, cli: &Cli) -> Result<()> {
    let is_selected = |bench| cli.only.is_none_or(|only| only == bench);
    if is_selected(Bench::Engine) {
        engine::run(server).await?;
    }
    if is_selected(Bench::Restate) {
        skip_unavailable(cli, Bench::Restate, restate::run(server, checkout).await)?;
    }
    if is_selected(Bench::Create) {
        create::run(server).await?;
    }
    if is_selected(Bench::History) {
        history::run(server, cli.history).await?;
    }
    if is_selected(Bench::Cost) {
        skip_unavailable(cli, Bench::Cost, cost::run(server, checkout).await)?;
    }
    Ok(())
}
