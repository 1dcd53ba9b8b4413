//! Lambda function `echo`: serves the queue of tool `echo`.

use echo::Echo;
use shared::worker::{self, WorkThenRecord};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    worker::run(env!("CARGO_PKG_NAME"), |_| Ok(WorkThenRecord(Echo))).await
}
