//! Redrives of dead letters, as events of the tenant.

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::session::Session;
use crate::error::Error;

/// A redrive that was carried out.
#[derive(Debug, Serialize)]
pub struct Redrive<'a> {
    pub id: Uuid,
    pub handler: &'a str,
    pub actor: &'a str,
    /// Messages that went back.
    pub moved: u64,
    /// Whether messages may be left.
    pub more: bool,
}

/// Records a redrive, once.
pub async fn redrive_record(session: &Session, redrive: &Redrive<'_>) -> Result<(), Error> {
    session.transition::<Value>("select nofx.redrive_record($1)", redrive).await.map(|_| ())
}
