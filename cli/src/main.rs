use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use nofx::{
    api::Api,
    checkout::Checkout,
    demo, deploy, deploy_local, dev, exec,
    gate::{self, Decision},
    migrate, report, rules, run,
};

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
    Demo {
        /// The port of the local stack
        #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
    },
    /// Run a command against a throwaway Postgres and AWS emulator
    Exec(exec::Args),
    /// Build the functions and deploy them to AWS
    Deploy(deploy::Args),
    /// Deploy the template to an emulator on this machine and run the sample plans there
    DeployLocal,
    /// Print the environment of the functions, for a shell
    Env(dev::EnvArgs),
    /// Apply the migrations that are pending
    Migrate {
        #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
        database_url: String,
        /// The directory of the migrations; by default the checkout's
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Submit a plan
    Submit(run::SubmitArgs),
    /// Show the progress of a run until it ends
    Watch { run_id: String },
    /// List the newest runs
    Runs,
    /// Let a gate pass
    Approve(gate::Args),
    /// Fail a gate
    Reject(gate::Args),
    /// Let a gate pass without its evidence
    Waive(gate::Args),
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
        Command::Demo { port } => demo::demo(&Checkout::find()?, port).await?,
        Command::Exec(args) => return exec::run(&Checkout::find()?, &args).await,
        Command::Deploy(args) => deploy::run(&Checkout::find()?, &args).await?,
        Command::DeployLocal => deploy_local::run(&Checkout::find()?).await?,
        Command::Env(args) => dev::print_environment(&Checkout::find()?, &args).await?,
        Command::Migrate { database_url, dir } => {
            let dir = dir.map_or_else(|| Ok(Checkout::find()?.migrations()), Ok::<_, anyhow::Error>)?;
            migrate::run(&database_url, &dir).await?;
        }
        Command::Submit(args) => return Ok(success(run::submit(&api, &args).await?)),
        Command::Watch { run_id } => return Ok(success(run::watch(&api, &run_id).await?)),
        Command::Runs => run::list(&api).await?,
        Command::Approve(args) => gate::run(&api, Decision::Approve, &args).await?,
        Command::Reject(args) => gate::run(&api, Decision::Reject, &args).await?,
        Command::Waive(args) => gate::run(&api, Decision::Waive, &args).await?,
        Command::Rules(command) => rules::run(&api, &command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn success(succeeded: bool) -> ExitCode {
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
