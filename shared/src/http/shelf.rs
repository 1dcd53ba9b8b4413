//! Where the issuer's keys survive a process: the database. Without them, nobody whose session has ended could log in through a
//! process that starts while the issuer is down.

use std::sync::Arc;

use tracing::warn;

use crate::auth::{Shelf, Stored};
use crate::context::Ctx;
use crate::db::Database;
use crate::db::jwks::{IssuerKey, jwks_last, jwks_store};

/// The shelf of the configured issuer. None without one.
pub(super) fn shelf(ctx: &Ctx) -> Option<Shelf> {
    let issuer = ctx.config.auth.issuer.as_ref()?.issuer.clone();
    let place = Arc::new((ctx.db.clone(), IssuerKey { tenant_id: ctx.config.tenant.clone(), issuer }));
    let from = Arc::clone(&place);
    Some(Shelf {
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
