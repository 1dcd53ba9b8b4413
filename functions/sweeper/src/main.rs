//! Lambda function `sweeper`: recovers stalled runs. It runs on a schedule and takes no input.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use shared::context::Ctx;
use shared::flow::sweep::sweep;
use shared::telemetry;

#[tokio::main]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let ctx = Ctx::from_env().await?;
    lambda_runtime::run(service_fn(|_: LambdaEvent<Value>| async { sweep(&ctx).await.map_err(Error::from) })).await
}
