//! The audit of a tenant: lists and exports. Triggers write it.

use serde::{Deserialize, Serialize};

use super::session::Session;
use crate::domain::audit::{AuditHead, AuditRow};
use crate::error::Error;
use crate::view::AuditPage;

/// Which entries to list.
#[derive(Debug, Serialize)]
pub struct AuditFilter<'a> {
    /// Entries before this one.
    pub after: Option<u64>,
    pub limit: i64,
    pub action: Option<&'a str>,
    /// The name of an actor.
    pub actor: Option<&'a str>,
}

/// Rows of the chain, oldest first.
#[derive(Debug, Deserialize)]
pub struct AuditExport {
    pub rows: Vec<AuditRow>,
    /// The number of the last row, if more follow.
    pub next: Option<u64>,
    /// The last row of all.
    pub head: AuditHead,
}

#[derive(Debug, Serialize)]
struct ExportCall {
    after: u64,
    limit: i64,
}

/// Entries that match the filter, newest first.
pub async fn audit_list(session: &Session, filter: &AuditFilter<'_>) -> Result<AuditPage, Error> {
    session.transition("select nofx.audit_page($1)", filter).await
}

/// Rows after number `after`.
pub async fn audit_export(session: &Session, after: u64, limit: i64) -> Result<AuditExport, Error> {
    session.transition("select nofx.audit_export($1)", &ExportCall { after, limit }).await
}
