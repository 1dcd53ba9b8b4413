//! Policies of tenants: set, read.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::Type;

use super::page::{Page, page};
use super::row;
use super::session::{Arg, Session};
use crate::error::Error;
use crate::view::PolicyVersion;

/// The next version of a policy.
#[derive(Debug, Serialize)]
pub struct NewPolicy<'a> {
    /// A document that `domain::Policy` reads.
    pub document: &'a Value,
    pub actor: &'a str,
    pub reason: Option<&'a str>,
    /// The version that the author has seen, 0 for none. Without it the document replaces whatever is current.
    pub if_version: Option<u32>,
}

/// Result of setting a policy, with the version that is current now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum PolicySet {
    Set {
        version: u32,
    },
    /// The document was current already.
    Unchanged {
        version: u32,
    },
    /// Another version than `if_version` is current.
    Conflict {
        version: u32,
    },
}

/// Columns of a version as the API shows it. The query names the policy `p`.
const COLUMNS: &str = "p.version, p.document, p.changed_by, p.reason, p.created_at";

/// Adds a version.
pub async fn policy_set(session: &Session, policy: &NewPolicy<'_>) -> Result<PolicySet, Error> {
    session.transition("select nofx.policy_set($1)", policy).await
}

/// The number of the current version. 0 if the tenant has no policy.
pub async fn policy_version(session: &Session) -> Result<u32, Error> {
    let sql = "select coalesce(max(p.version), 0) from nofx.policy p where p.tenant_id = $1";
    let version: i32 = session.value(sql, &[]).await?.unwrap_or_default();
    u32::try_from(version).map_err(|error| Error::internal("read a policy's version", error))
}

/// The current version. `None` if the tenant has no policy.
pub async fn policy_fetch(session: &Session) -> Result<Option<PolicyVersion>, Error> {
    let sql = format!("select {COLUMNS} from nofx.policy p where p.tenant_id = $1 order by p.version desc limit 1");
    row::fetch(session, &sql, &[]).await
}

/// Versions, newest first, before the version `after`.
pub async fn policy_list(session: &Session, after: Option<u32>, limit: i64) -> Result<Page<PolicyVersion>, Error> {
    let sql = format!(
        "select {COLUMNS} from nofx.policy p
          where p.tenant_id = $1 and p.version < coalesce($3, 2147483647)
          order by p.version desc limit $2 + 1"
    );
    let after = after.map(|version| i32::try_from(version).unwrap_or(i32::MAX));
    let params: [Arg<'_>; 2] = [(&limit, Type::INT8), (&after, Type::INT4)];
    page(session, &sql, limit, &params).await
}
