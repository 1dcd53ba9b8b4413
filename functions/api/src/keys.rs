//! The public keys that verify attestations.

use axum::Json;
use axum::extract::State;
use shared::context::Ctx;
use shared::error::Error;
use shared::signing::{self, ALGORITHM, PublicKey};
use shared::view::{KeyPurpose, SigningKey, SigningKeys};

/// `GET /keys` -> the keys that verify attestations. Of each purpose the first one belongs to the key that signs now.
pub async fn list(State(ctx): State<Ctx>) -> Result<Json<SigningKeys>, Error> {
    let evidence = signing::public_keys(&ctx.config.signing, &ctx.sdk).await?;
    let decisions = signing::public_keys(&ctx.config.decisions, &ctx.sdk).await?;
    let seals = signing::public_keys(&ctx.config.seals, &ctx.sdk).await?;
    let listed = |keys: Vec<PublicKey>, purpose: KeyPurpose| {
        keys.into_iter().enumerate().map(move |(index, key)| SigningKey {
            keyid: key.keyid().to_owned(),
            algorithm: ALGORITHM.to_owned(),
            purpose,
            current: index == 0,
            pem: key.to_pem(),
        })
    };
    let keys = listed(evidence, KeyPurpose::Evidence)
        .chain(listed(decisions, KeyPurpose::Decisions))
        .chain(listed(seals, KeyPurpose::Seals));
    Ok(Json(SigningKeys { keys: keys.collect() }))
}
