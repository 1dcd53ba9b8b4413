//! `nofx exec`: runs a command against a throwaway stack. Tests use it.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use nofx_local::aws::contract::Contract;
use nofx_local::checkout::Checkout;
use nofx_local::port;
use nofx_local::process::signals::Signals;
use nofx_local::process::{self, PidFile, table};
use nofx_local::report::hinted;
use nofx_local::stack::{Options, Stack};
use nofx_local::throwaway::Throwaway;
use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long the command may take to end after a signal before it is killed.
const COMMAND_GRACE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Also start the functions; NOFX_TEST_API_URL is the URL of their API
    #[arg(long)]
    functions: bool,
    /// Also start LocalStack and a second S3 server, for the contract tests
    #[arg(long)]
    localstack: bool,
    /// Command and its arguments; NOFX_TEST_DATABASE_URL and NOFX_TEST_AWS_ENDPOINT_URL are the servers' URLs
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command. Returns its exit code.
pub async fn run(checkout: &Checkout, args: &Args) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let place = Throwaway::make(checkout, "exec").await?;

    let http_port = if args.functions { Some(port::any_free()?) } else { None };
    let options = Options::throwaway(&place, http_port)?;
    let mut stack = Stack::new(checkout.clone(), options, place.pid_file.clone());
    let mut contract = None;
    let start = async {
        if args.localstack {
            contract = Some(Contract::start(checkout, &place.dir, &place.pid_file).await?);
        }
        stack.start().await
    };
    let code = tokio::select! {
        started = start => match started {
            Ok(()) => match command(&args.command, &stack, contract.as_ref(), http_port) {
                Ok(command) => run_command(command, &place.pid_file, &mut signals).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        },
        signal = signals.next() => Ok(interrupted(signal)),
    };
    if let Some(contract) = contract {
        contract.stop().await;
    }
    stack.stop().await;
    place.end(code.is_ok());
    code
}

/// The command, with the servers' addresses in its environment.
fn command(words: &[String], stack: &Stack, contract: Option<&Contract>, http_port: Option<u16>) -> Result<Command> {
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("NOFX_TEST_DATABASE_URL", &stack.database_url)
        .env("NOFX_TEST_AWS_ENDPOINT_URL", &stack.aws_endpoint)
        .envs(contract.iter().flat_map(|contract| contract.variables.clone()))
        .kill_on_drop(true);
    if let Some(port) = http_port {
        command.env("NOFX_TEST_API_URL", format!("http://127.0.0.1:{port}"));
    }
    Ok(command)
}

async fn run_command(mut command: Command, pid_file: &PidFile, signals: &mut Signals) -> Result<ExitCode> {
    // With a terminal, the command must stay in the foreground process group, where Ctrl-C reaches it. Without one, it
    // leads its own group, so that all of its processes can be ended.
    let own_group = !std::io::stdin().is_terminal();
    if own_group {
        command.process_group(0);
    }
    let mut child = command.spawn().map_err(|error| {
        let program = command.as_std().get_program();
        hinted(format!("cannot run {}: {error}", program.display()), "check that it is installed")
    })?;
    if let Some(pid) = child.id() {
        pid_file.add("command", pid);
    }
    let signal = tokio::select! {
        status = child.wait() => return Ok(exit_code(status.context("cannot wait for the command")?)),
        signal = signals.next() => signal,
    };
    end_command(&mut child, signal, own_group).await;
    Ok(interrupted(signal))
}

async fn end_command(child: &mut Child, signal: Signal, own_group: bool) {
    let Some(pid) = child.id() else { return };
    if own_group {
        process::signal_group(pid, signal);
    } else if signal != Signal::INT {
        process::signal_one(pid, signal);
    }
    let _ = timeout(COMMAND_GRACE, child.wait()).await;
    if own_group {
        process::signal_group(pid, Signal::KILL);
    } else if child.id().is_some() {
        for row in table::tree(&table::read(), pid) {
            process::signal_one(row.pid, Signal::KILL);
        }
    }
    let _ = child.wait().await;
}

fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    // As in shells: 128 plus the number of the signal.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn interrupted(signal: Signal) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(1))
}
