//! Runs one command in a sandbox: reads a request as JSON from standard input and prints the result as JSON. Without input, it
//! prints what the host offers.
//!
//! ```text
//! nofx-sandbox </dev/null
//! echo '{"argv":["node","--version"],"toolchain":true}' | nofx-sandbox
//! ```

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nofx_sandbox::{Command, Companion, Level, Limits, Network};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    argv: Vec<String>,
    current_dir: Option<PathBuf>,
    #[serde(default)]
    environment: Vec<(String, String)>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    read_only: Vec<PathBuf>,
    #[serde(default)]
    writable: Vec<PathBuf>,
    network: Option<Network>,
    limits: Option<Limits>,
    minimum: Option<Level>,
    #[serde(default)]
    companions: Vec<Companion>,
    /// The strongest level to use.
    at_most: Option<Level>,
    /// Refuses no system calls.
    #[serde(default)]
    without_seccomp: bool,
    /// The newest version of Landlock to use.
    landlock_abi: Option<u32>,
    /// Makes namespaces through this `bwrap`.
    bubblewrap: Option<PathBuf>,
    /// Adds the tools of this process's PATH.
    #[serde(default)]
    toolchain: bool,
}

fn main() -> std::process::ExitCode {
    nofx_sandbox::init();
    match start() {
        Ok(answer) => {
            println!("{answer}");
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn start() -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input)?;
    if input.trim().is_empty() {
        return Ok(serde_json::to_value(nofx_sandbox::host())?);
    }
    let command = command(serde_json::from_str(&input)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let started = Instant::now();
    let finished = runtime.block_on(nofx_sandbox::run(&command))?;
    let text = [&finished.output.head[..], &finished.output.tail].concat();
    Ok(json!({
        "exit": finished.exit,
        "output": String::from_utf8_lossy(&text),
        "output_bytes": finished.output.bytes,
        "duration_ms": finished.duration.as_secs_f64() * 1000.0,
        "total_ms": started.elapsed().as_secs_f64() * 1000.0,
        "report": finished.report,
    }))
}

fn command(request: Request) -> Command {
    let mut command = Command::new(request.argv, request.current_dir.unwrap_or_else(|| "/tmp".into()));
    command.environment = request.environment;
    command.read_only = request.read_only;
    command.writable = request.writable;
    command.companions = request.companions;
    command.timeout = request.timeout_ms.map_or(command.timeout, Duration::from_millis);
    command.network = request.network.unwrap_or(command.network);
    command.limits = request.limits.unwrap_or(command.limits);
    command.minimum = request.minimum.unwrap_or(command.minimum);
    let mut host = nofx_sandbox::host().clone();
    if let Some(level) = request.at_most {
        host = host.at(level);
    }
    host.seccomp &= !request.without_seccomp;
    host.landlock_abi = host.landlock_abi.min(request.landlock_abi.unwrap_or(u32::MAX));
    if let Some(program) = request.bubblewrap {
        host.namespaces = Some(nofx_sandbox::Through::Bubblewrap(program));
    }
    command.at_most = Some(host);
    if request.toolchain {
        add_toolchain(&mut command);
    }
    command
}

fn add_toolchain(command: &mut Command) {
    let tools = nofx_sandbox::toolchain(&std::env::var_os("PATH").unwrap_or_default());
    command.read_only.extend(tools.read_only);
    command.hidden.extend(tools.hidden);
    let path = ("PATH".to_owned(), tools.search_path);
    let variables = tools.environment.into_iter().chain([path]);
    command.environment.extend(variables.filter_map(|(name, value)| Some((name, value.into_string().ok()?))));
}
