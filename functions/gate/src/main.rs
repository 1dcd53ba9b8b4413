//! Lambda function `gate`: serves the queue of tools `gate:*`.

use gate::{Gate, Runners};
use nofx_gates::judge::Settings;
use shared::context::Ctx;
use shared::error::Error;
use shared::invoke::Functions;
use shared::signing::Signer;
use shared::worker::{self, WorkThenRecord};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    worker::run(env!("CARGO_PKG_NAME"), make).await
}

#[expect(clippy::unnecessary_wraps, reason = "the worker takes a function that may fail")]
fn make(ctx: &Ctx) -> Result<WorkThenRecord<Gate>, Error> {
    let config = ctx.config.gate.clone();
    Ok(WorkThenRecord(Gate {
        settings: Settings::new(config.work_dir),
        runners: Runners::new(&config.runner, Functions::new(&ctx.sdk)),
        signer: Signer::new(&ctx.config.signing, &ctx.sdk),
        default_workspace: config.workspace,
        default_base: config.base,
    }))
}
