//! Redrives of dead letters, as events of the tenant.

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::pool::Database;
use crate::domain::TenantId;
use crate::error::Error;

/// A redrive that was carried out.
#[derive(Debug, Serialize)]
pub struct Redrive<'a> {
    pub tenant_id: &'a TenantId,
    pub id: Uuid,
    pub handler: &'a str,
    pub actor: &'a str,
    /// Messages that went back.
    pub moved: u64,
    /// Whether messages may be left.
    pub more: bool,
}

/// Records a redrive, once.
pub async fn redrive_record(db: &Database, redrive: &Redrive<'_>) -> Result<(), Error> {
    db.transition::<Value>("select nofx.redrive_record($1)", redrive).await.map(|_| ())
}
