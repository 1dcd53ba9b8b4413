//! Lambda function `api`: runs, timelines, artifacts, workspaces, health.

use shared::context::Ctx;
use shared::{http, telemetry};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    http::run(api::router(Ctx::for_requests().await?)?).await
}
