//! The audit of a tenant.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use crate::domain::audit::AuditHead;
use crate::domain::{Timestamp, TokenId};

/// An entry of the audit: who did what, when and from where.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct AuditEntry {
    /// From 1, without gaps.
    pub seq: u64,
    pub at: Timestamp,
    /// Such as `policy.set`.
    pub action: String,
    /// What it was done to: a table, a member's subject, the id of a token or of a gate.
    pub subject: String,
    /// The name of who did it. `database:LOGIN` for a direct change.
    pub actor: String,
    /// Null for a direct change.
    pub by: Option<AuditActor>,
    pub ip: Option<IpAddr>,
    pub request_id: Option<String>,
    /// The login of the database that wrote it.
    pub database: String,
    /// sha256 of the row before. Null if it is new.
    pub before: Option<String>,
    /// sha256 of the row after. Null if it was deleted.
    pub after: Option<String>,
    /// Some fields of the row.
    pub detail: Map<String, Value>,
    /// Hash of the entry before.
    pub prev_hash: String,
    pub hash: String,
}

/// Who did it, for programs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct AuditActor {
    /// `person`, `agent` or `service`.
    pub kind: String,
    pub subject: String,
    pub role: String,
    /// How the actor proved who they are: `jwt`, `token` or `local`.
    pub via: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<TokenId>,
}

/// A page of entries, newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct AuditPage {
    pub entries: Vec<AuditEntry>,
    /// `after` of the next page.
    pub next: Option<u64>,
    /// The newest entry of all.
    pub head: AuditHead,
}
