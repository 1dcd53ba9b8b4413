//! Members of a tenant: set, remove, list.

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use super::page::{Page, page};
use super::row;
use super::session::{Arg, Session};
use crate::domain::Role;
use crate::error::Error;
use crate::view::{Member, MemberRemoved};

/// A person to make a member, or what they are from now on.
#[derive(Debug, Serialize)]
pub struct NewMember<'a> {
    /// The `sub` of their login.
    pub subject: &'a str,
    pub role: Role,
    pub name: &'a str,
    pub email: Option<&'a str>,
}

/// Result of setting a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum MemberSet {
    Created,
    Replaced,
    Unchanged,
    /// The tenant would have no admin left.
    LastAdmin,
    /// The role is above that of the caller.
    RoleAbove,
}

/// Result of removing a member.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum MemberGone {
    Removed(MemberRemoved),
    /// The tenant would have no admin left.
    LastAdmin,
    NotFound,
    /// Nobody of the name `tokens_to` is another member.
    HeirNotFound,
}

#[derive(Debug, Serialize)]
struct RemoveCall<'a> {
    subject: &'a str,
    tokens_to: Option<&'a str>,
}

/// Makes somebody a member, or changes a member.
pub async fn member_set(session: &Session, member: &NewMember<'_>) -> Result<MemberSet, Error> {
    session.transition("select nofx.member_set($1)", member).await
}

/// Removes a member, ends their sessions, and revokes their tokens unless `tokens_to` answers for them from now on.
pub async fn member_remove(session: &Session, subject: &str, tokens_to: Option<&str>) -> Result<MemberGone, Error> {
    session.transition("select nofx.member_remove($1)", &RemoveCall { subject, tokens_to }).await
}

const COLUMNS: &str = "m.subject, m.role, m.name, m.email, m.created_at, m.created_by";

/// A member. None if nobody of this subject is one now.
pub async fn member_fetch(session: &Session, subject: &str) -> Result<Option<Member>, Error> {
    let sql = format!(
        "select {COLUMNS} from nofx.membership m where m.tenant_id = $1 and m.subject = $2 and m.removed_at is null"
    );
    row::fetch(session, &sql, &[(&subject, Type::TEXT)]).await
}

/// Members, ordered by subject, after this one.
pub async fn member_list(session: &Session, after: Option<&str>, limit: i64) -> Result<Page<Member>, Error> {
    let sql = format!(
        "select {COLUMNS} from nofx.membership m
          where m.tenant_id = $1 and m.removed_at is null and ($3::text is null or m.subject > $3)
          order by m.subject limit $2 + 1"
    );
    let args: [Arg<'_>; 2] = [(&limit, Type::INT8), (&after, Type::TEXT)];
    page(session, &sql, limit, &args).await
}
