//! Lambda function `gate`: serves the queue of tools `gate:*`.

use gate::Gate;
use nofx_gates::GateConfig;
use shared::config::GateDefaults;
use shared::signing::Signer;
use shared::worker::{self, WorkThenRecord};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    worker::run(env!("CARGO_PKG_NAME"), |ctx| {
        let signer = Signer::new(&ctx.config.signing, &ctx.sdk);
        Ok(WorkThenRecord(Gate::new(config(ctx.config.gate.clone()), signer)))
    })
    .await
}

fn config(defaults: GateDefaults) -> GateConfig {
    let mut config = GateConfig::new(defaults.work_dir);
    config.default_workspace = defaults.workspace;
    config.default_base = defaults.base;
    config.npm_user_config = defaults.npm_user_config;
    match defaults.search_path {
        Some(path) => config.with_node_from(&path),
        None => config,
    }
}
