//! Lambda function `workspace`: serves the queue of tools `workspace:*`.

use shared::worker::{self, WorkThenRecord};
use workspace::Workspaces;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    worker::run(env!("CARGO_PKG_NAME"), |ctx| {
        let gate = &ctx.config.gate;
        let search_path = gate.search_path.clone().unwrap_or_default();
        Ok(WorkThenRecord(Workspaces::new(gate.work_dir.join("workspaces"), search_path)))
    })
    .await
}
