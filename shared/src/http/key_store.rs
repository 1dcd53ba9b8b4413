//! Keeps the issuer's public keys in the database, for processes that start while the issuer's key endpoint is down. Without
//! them, such a process could verify no JSON web token.

use std::sync::Arc;

use tracing::warn;

use crate::auth::{KeyStore, Stored};
use crate::context::Ctx;
use crate::db::Database;
use crate::db::jwks::{IssuerKey, jwks_last, jwks_store};

/// The key store of the configured issuer. None if no issuer is configured.
pub(super) fn key_store(ctx: &Ctx) -> Option<KeyStore> {
    let issuer = ctx.config.auth.issuer.as_ref()?.issuer.clone();
    let place = Arc::new((ctx.db.clone(), IssuerKey { tenant_id: ctx.config.tenant.clone(), issuer }));
    let from = Arc::clone(&place);
    Some(KeyStore {
        load: Arc::new(move || {
            let place = Arc::clone(&from);
            Box::pin(async move { load(&place.0, &place.1).await })
        }),
        store: Arc::new(move |stored| {
            let place = Arc::clone(&place);
            Box::pin(async move { store(&place.0, &place.1, &stored).await })
        }),
    })
}

async fn load(db: &Database, key: &IssuerKey) -> Option<Stored> {
    let last = jwks_last(db, key).await.unwrap_or_else(|error| {
        warn!(error = %error, "the stored keys of the issuer cannot be read");
        None
    });
    last.map(|(document, fetched_at)| Stored { document, fetched_at })
}

async fn store(db: &Database, key: &IssuerKey, stored: &Stored) {
    if let Err(error) = jwks_store(db, key, &stored.document, stored.fetched_at).await {
        warn!(error = %error, "the keys of the issuer cannot be stored");
    }
}
