//! Lambda function `sweeper`: recovers stalled runs, seals those that have ended, archives and deletes artifacts, and deletes
//! objects that no artifact names. It runs on a schedule and takes no input.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use shared::context::Ctx;
use shared::flow::clear_leftovers::clear_leftovers;
use shared::flow::keep_artifacts::keep_artifacts;
use shared::flow::seal_runs::{Sealer, seal_runs};
use shared::flow::sweep::{Report, sweep};
use shared::telemetry;

#[tokio::main]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let ctx = Ctx::from_env().await?;
    let sealer = Sealer::new(&ctx);
    lambda_runtime::run(service_fn(|_: LambdaEvent<Value>| async { work(&ctx, &sealer).await.map_err(Error::from) }))
        .await
}

/// Recovery comes first: open runs matter more than proofs of ended ones, and both more than what old artifacts cost.
async fn work(ctx: &Ctx, sealer: &Sealer) -> Result<Report, shared::error::Error> {
    let report = sweep(ctx).await;
    let proofs = seal_runs(ctx, sealer).await;
    let kept = keep_artifacts(ctx).await;
    clear_leftovers(ctx).await?;
    kept?;
    proofs?;
    report
}
