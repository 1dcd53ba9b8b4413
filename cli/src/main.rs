use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use nofx::client::api::Api;
use nofx::commands::{
    decide, demo, deploy, deploy_local, dev, env, exec, gate, keys, migrate, migration, plan, policy, rules, runs,
    submit, watch, worker,
};
use nofx_local::checkout::Checkout;
use nofx_local::report;
use shared::domain::gate::Decision;

/// The command of the NOFX control plane
#[derive(Debug, Parser)]
#[command(name = "nofx", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Environment:
  NOFX_API_URL  The API that plan check, submit, watch, runs, approve, reject, waive, policy, rules and keys call [default: http://127.0.0.1:3000]

Exit status:
  0  success
  1  failure, or the watched run did not succeed
  2  wrong usage
  exec returns the status of its command, or 128 plus the number of the signal that ended it.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the local stack in the foreground, until Ctrl-C
    Dev(dev::Args),
    /// Run the sample plans, and check that each ends as expected
    Demo(demo::Args),
    /// Run a command with a throwaway Postgres and AWS emulator
    Exec(exec::Args),
    /// Build the functions and deploy them to AWS
    Deploy(deploy::Args),
    /// Deploy to an emulator on this machine, and run the sample plans there
    DeployLocal,
    /// Judge code in a checkout, without a control plane
    Gate(gate::Command),
    /// Print the functions' environment variables, for a shell: eval "$(nofx env)"
    Env(env::Args),
    /// Apply pending migrations to a database
    Migrate(migrate::Args),
    /// Write the next migration, with the SQL functions that changed
    Migration(migration::Args),
    /// Check a plan, or print the schema of plans
    #[command(subcommand)]
    Plan(plan::Command),
    /// Submit a plan, and print the id of its run
    Submit(submit::Args),
    /// Print the events of a run until it ends
    Watch(watch::Args),
    /// List the newest runs, with filters
    Runs(runs::Args),
    /// Approve a gate: the step or run that waits for it continues
    Approve(decide::Args),
    /// Reject a gate: the step or run that waits for it fails
    Reject(decide::Args),
    /// Waive a gate: let it pass without evidence
    Waive(decide::Args),
    /// Serve a queue on this machine, with the environment of `nofx env`
    #[command(subcommand)]
    Worker(worker::Queue),
    /// Show and change what gates demand, whatever a plan says
    #[command(subcommand)]
    Policy(policy::Command),
    /// Show and change which tables plans may write
    #[command(subcommand)]
    Rules(rules::Command),
    /// List the public keys that verify attestations of gates
    Keys(keys::Args),
}

fn main() -> ExitCode {
    // If this process was started as a launcher of `nofx gate`, it runs the command here and never returns.
    nofx_sandbox::init();
    start(Cli::parse().command)
}

#[tokio::main]
async fn start(command: Command) -> ExitCode {
    match run(command).await {
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
        Command::Gate(command) => return gate::run(&command).await,
        Command::Env(args) => env::run(&Checkout::find()?, &args).await?,
        Command::Migrate(args) => migrate::run(&args).await?,
        Command::Migration(args) => migration::run(&args)?,
        Command::Plan(command) => plan::run(&api, &command).await?,
        Command::Submit(args) => return Ok(success(submit::run(&api, &args).await?)),
        Command::Watch(args) => return Ok(success(watch::watch(&api, &args.run_id).await?)),
        Command::Runs(args) => runs::run(&api, &args).await?,
        Command::Approve(args) => decide::run(&api, Decision::Approve, &args).await?,
        Command::Reject(args) => decide::run(&api, Decision::Reject, &args).await?,
        Command::Waive(args) => decide::run(&api, Decision::Waive, &args).await?,
        Command::Worker(queue) => worker::run(queue)?,
        Command::Policy(command) => policy::run(&api, &command).await?,
        Command::Rules(command) => rules::run(&api, &command).await?,
        Command::Keys(args) => keys::run(&api, &args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn success(succeeded: bool) -> ExitCode {
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
