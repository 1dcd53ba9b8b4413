//! Lambda function `console`: server-rendered pages of runs, artifacts and gates.

use shared::context::Ctx;
use shared::{http, telemetry};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    http::run(console::router(Ctx::for_requests().await?)?).await
}
