//! Lambda function of tool `codegen`.

use codegen::{Codegen, CodegenConfig, ProviderKeys};
use shared::worker::{self, Plain};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    worker::run("codegen", |ctx| {
        let (secrets, id) = (ctx.secrets.clone(), ctx.config.llm.secret_id.clone());
        let keys = move || {
            let (secrets, id) = (secrets.clone(), id.clone());
            async move {
                let secret = secrets.get(&id).await?;
                secret.map_or_else(|| Ok(ProviderKeys::default()), |json| ProviderKeys::from_secret(&json))
            }
        };
        Ok(Plain(Codegen::new(CodegenConfig::from_llm(&ctx.config.llm)?, keys)?))
    })
    .await
}
