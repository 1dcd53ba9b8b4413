//! The policy, with its history.

use serde::Deserialize;
use tokio_postgres::types::Type;

use super::WAITING;
use crate::db::row;
use crate::db::session::Session;
use crate::error::Error;
use crate::view::PolicyVersion;

/// Versions on a page.
const PAGE: usize = 20;

/// The current policy, and a page of its versions.
#[derive(Debug, Clone, Default)]
pub struct PolicyHistory {
    /// `None` if the tenant has set no policy.
    pub current: Option<PolicyVersion>,
    /// Newest first.
    pub versions: Vec<PolicyVersion>,
    /// The version before the last one of this page, to tell what that one changed. It is the first of the next page.
    pub before: Option<PolicyVersion>,
    /// Whether this is not the first page.
    pub is_continuation: bool,
    /// Pending gates of the tenant, counted up to 100.
    pub waiting: u64,
}

/// The current policy, and its versions before the version `after`.
pub async fn policy_history(session: &Session, after: Option<u32>) -> Result<PolicyHistory, Error> {
    #[derive(Deserialize)]
    struct Found {
        current: Option<PolicyVersion>,
        versions: Vec<PolicyVersion>,
        waiting: u64,
    }
    let columns = "p.version, p.document, p.changed_by, p.reason, p.created_at";
    let sql = format!(
        "select (select row_to_json(c) from (
                    select {columns} from nofx.policy p where p.tenant_id = $1 order by p.version desc limit 1) c) as current,
                coalesce((select json_agg(v) from (
                    select {columns} from nofx.policy p
                     where p.tenant_id = $1 and p.version < coalesce($2, 2147483647)
                     order by p.version desc limit {PAGE} + 1) v), '[]') as versions,
                {WAITING} as waiting"
    );
    let below = after.map(|version| i32::try_from(version).unwrap_or(i32::MAX));
    let found: Option<Found> = row::fetch(session, &sql, &[(&below, Type::INT4)]).await?;
    let Found { current, mut versions, waiting } = found.ok_or_else(|| Error::internal("read the policy", "no row"))?;
    let before = (versions.len() > PAGE).then(|| versions.pop()).flatten();
    Ok(PolicyHistory { current, versions, before, is_continuation: after.is_some(), waiting })
}
