//! The last public keys of an issuer, for processes that start while the issuer's key endpoint is down.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pool::Database;
use crate::domain::TenantId;
use crate::error::Error;

/// An issuer of a deployment.
#[derive(Debug, Clone, Serialize)]
pub struct IssuerKey {
    /// The tenant of the deployment.
    pub tenant_id: TenantId,
    pub issuer: String,
}

/// A document, and when it was read.
#[derive(Debug, Serialize)]
struct NewDocument<'a> {
    #[serde(flatten)]
    key: &'a IssuerKey,
    document: &'a str,
    fetched_at_ms: u64,
}

#[derive(Debug, Deserialize)]
struct LastDocument {
    document: Option<String>,
    fetched_at_ms: Option<u64>,
}

/// Keeps a document that was read at this time, since 1970.
pub async fn jwks_store(db: &Database, key: &IssuerKey, document: &str, fetched_at: Duration) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Stored {}
    let fetched_at_ms = u64::try_from(fetched_at.as_millis()).unwrap_or(u64::MAX);
    let Stored {} = db.transition("select nofx.jwks_store($1)", &NewDocument { key, document, fetched_at_ms }).await?;
    Ok(())
}

/// The last document, and when it was read, since 1970.
pub async fn jwks_last(db: &Database, key: &IssuerKey) -> Result<Option<(String, Duration)>, Error> {
    let last: LastDocument = db.transition("select nofx.jwks_last($1)", key).await?;
    Ok(last.document.zip(last.fetched_at_ms.map(Duration::from_millis)))
}
