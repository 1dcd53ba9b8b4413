use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use nofx::client::api::Api;
use nofx::commands::{decide, demo, deploy, deploy_local, dev, env, exec, migrate, rules, runs, submit, watch};
use nofx_local::checkout::Checkout;
use nofx_local::report;
use shared::domain::gate::Decision;

/// The command of the NOFX control plane
#[derive(Debug, Parser)]
#[command(name = "nofx", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the local stack in the foreground
    Dev(dev::Args),
    /// Run the sample plans and show what comes of them
    Demo(demo::Args),
    /// Run a command against a throwaway Postgres and AWS emulator
    Exec(exec::Args),
    /// Build the functions and deploy them to AWS
    Deploy(deploy::Args),
    /// Deploy the template to an emulator on this machine and run the sample plans there
    DeployLocal,
    /// Print the environment of the functions, for a shell
    Env(env::Args),
    /// Apply the migrations that are pending
    Migrate(migrate::Args),
    /// Submit a plan
    Submit(submit::Args),
    /// Show the progress of a run until it ends
    Watch(watch::Args),
    /// List the newest runs
    Runs,
    /// Let a gate pass
    Approve(decide::Args),
    /// Fail a gate
    Reject(decide::Args),
    /// Let a gate pass without its evidence
    Waive(decide::Args),
    /// Read and change which tables plans may write
    #[command(subcommand)]
    Rules(rules::Command),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            report::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    let api = Api::from_env().await;
    match command {
        Command::Dev(args) => dev::run(&Checkout::find()?, &args).await?,
        Command::Demo(args) => demo::run(&Checkout::find()?, &args).await?,
        Command::Exec(args) => return exec::run(&Checkout::find()?, &args).await,
        Command::Deploy(args) => deploy::run(&Checkout::find()?, &args).await?,
        Command::DeployLocal => deploy_local::run(&Checkout::find()?).await?,
        Command::Env(args) => env::run(&Checkout::find()?, &args).await?,
        Command::Migrate(args) => migrate::run(&args).await?,
        Command::Submit(args) => return Ok(success(submit::run(&api, &args).await?)),
        Command::Watch(args) => return Ok(success(watch::watch(&api, &args.run_id).await?)),
        Command::Runs => runs::run(&api).await?,
        Command::Approve(args) => decide::run(&api, Decision::Approve, &args).await?,
        Command::Reject(args) => decide::run(&api, Decision::Reject, &args).await?,
        Command::Waive(args) => decide::run(&api, Decision::Waive, &args).await?,
        Command::Rules(command) => rules::run(&api, &command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn success(succeeded: bool) -> ExitCode {
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
