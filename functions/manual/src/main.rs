//! Lambda function `manual`: serves the queue of tools `manual:*`.

use manual::Manual;
use shared::worker::{self, WorkThenRecord};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    worker::run(env!("CARGO_PKG_NAME"), |_| Ok(WorkThenRecord(Manual))).await
}
