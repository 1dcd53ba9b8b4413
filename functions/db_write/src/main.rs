//! Lambda function `db_write`: serves the queue of tool `db_write`.

use db_write::DbWrite;
use shared::worker::{self, InTransaction};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    worker::run(env!("CARGO_PKG_NAME"), |_| Ok(InTransaction(DbWrite))).await
}
