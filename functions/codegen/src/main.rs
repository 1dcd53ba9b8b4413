//! Lambda function of tool `codegen`.

use std::time::Instant;

use codegen::{Codegen, CodegenConfig, ProviderKeys};
use shared::worker::{self, WorkThenRecord};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    worker::run(env!("CARGO_PKG_NAME"), |ctx| {
        let (secrets, id) = (ctx.secrets.clone(), ctx.config.llm.secret_id.clone());
        let keys = move |read_after: Option<Instant>| {
            let (secrets, id) = (secrets.clone(), id.clone());
            async move {
                let secret = match read_after {
                    None => secrets.get(&id).await?,
                    Some(instant) => secrets.get_read_after(&id, instant).await?,
                };
                secret.map_or_else(|| Ok(ProviderKeys::default()), |json| ProviderKeys::from_secret(&json))
            }
        };
        let limits = &ctx.config.limits;
        let config = CodegenConfig { outputs_bytes: limits.outputs_bytes, ..CodegenConfig::from_llm(&ctx.config.llm)? };
        Ok(WorkThenRecord(Codegen::new(config, keys)?))
    })
    .await
}
