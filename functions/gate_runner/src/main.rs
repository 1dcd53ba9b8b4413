//! Lambda function `gate_runner`: runs the command of a gate. It holds no database login, no signing key and no AWS
//! permission: a request names one workspace to read and one bundle to write, by signed URLs.
//!
//! `gate_runner run` reads one request from standard input instead, for machines without Lambda.

use std::error::Error;
use std::io::Read;

use anyhow::{Context, Result, anyhow, bail};
use gate_runner::Runner;
use lambda_runtime::{LambdaEvent, service_fn};
use nofx_gates::run::RunSpec;
use shared::config::RunnerConfig;
use shared::telemetry;

fn main() -> Result<()> {
    // If this process was started as a launcher, it runs the command here and never returns.
    nofx_sandbox::init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        telemetry::init();
        let config = RunnerConfig::from_env();
        let runner = Runner::new(&config);
        // A managed runtime starts this program with the command of its own runtime as arguments.
        match std::env::args().nth(1).as_deref() {
            Some("run") => run_one(&runner).await,
            Some(other) if !config.is_lambda => bail!("unknown argument {other:?}; use `gate_runner run`"),
            _ => serve(runner).await,
        }
    })
}

async fn serve(runner: Runner) -> Result<()> {
    let runner = &runner;
    let serve = service_fn(async |event: LambdaEvent<RunSpec>| {
        runner.run(event.payload).await.map_err(Box::<dyn Error + Send + Sync>::from)
    });
    lambda_runtime::run(serve).await.map_err(|error| anyhow!("{error}"))
}

async fn run_one(runner: &Runner) -> Result<()> {
    // Without `gate`, nobody reads the answer, and the command would run on.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("cannot follow the end of the parent")?;
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read the request")?;
    let answer = runner.run(serde_json::from_str(&text).context("the request is not a RunSpec")?).await?;
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}
