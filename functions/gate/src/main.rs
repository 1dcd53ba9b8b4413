//! Lambda function `gate`: serves the queue of tools `gate:*`.
//!
//! `gate poll` serves the queue of long gates instead, on a machine without Lambda, until SIGTERM or Ctrl-C. It runs
//! commands in processes of the program `gate_runner`, which must be beside it.

use gate::{Gate, Runners};
use nofx_gates::judge::Settings;
use shared::context::Ctx;
use shared::domain::tool::LONG_GATES;
use shared::invoke::Functions;
use shared::signing::Signer;
use shared::telemetry;
use shared::worker::{self, WorkThenRecord};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    if std::env::args().nth(1).as_deref() == Some("poll") {
        return poll().await;
    }
    worker::run(env!("CARGO_PKG_NAME"), |ctx| Ok(WorkThenRecord(gate(ctx, &ctx.config.gate.runner)))).await
}

async fn poll() -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let ctx = Ctx::from_env().await?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let executor = WorkThenRecord(gate(&ctx, "process"));
    Ok(worker::poll(LONG_GATES.name, ctx, executor, stop).await?)
}

fn gate(ctx: &Ctx, runner: &str) -> Gate {
    let config = ctx.config.gate.clone();
    Gate {
        settings: Settings::new(config.work_dir),
        runners: Runners::new(runner, Functions::new(&ctx.sdk)),
        signer: Signer::new(&ctx.config.signing, &ctx.sdk),
        default_workspace: config.workspace,
        default_base: config.base,
    }
}
