//! The public keys that verify attestations.

use axum::Json;
use axum::extract::State;
use shared::context::Ctx;
use shared::error::Error;
use shared::signing::{self, ALGORITHM};
use shared::view::{SigningKey, SigningKeys};

/// `GET /keys` -> the keys that verify attestations. The first one belongs to the key that signs now.
pub async fn list(State(ctx): State<Ctx>) -> Result<Json<SigningKeys>, Error> {
    let keys = signing::public_keys(&ctx.config.signing, &ctx.sdk).await?;
    let listed = keys.iter().enumerate().map(|(index, key)| SigningKey {
        keyid: key.keyid().to_owned(),
        algorithm: ALGORITHM.to_owned(),
        current: index == 0,
        pem: key.to_pem(),
    });
    Ok(Json(SigningKeys { keys: listed.collect() }))
}
