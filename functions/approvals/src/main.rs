//! Lambda function `approvals`: gates and decisions.

use shared::context::Ctx;
use shared::{http, telemetry};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    http::run(approvals::router(Ctx::for_requests().await?)?).await
}
