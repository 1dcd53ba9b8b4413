//! Members of a tenant: set, remove, list.

use serde::{Deserialize, Serialize};

use super::page::Page;
use super::session::Session;
use crate::domain::Role;
use crate::error::Error;
use crate::view::{Member, MemberRemoved};

/// A new member, or the new values of one.
#[derive(Debug, Serialize)]
pub struct NewMember<'a> {
    /// The `sub` of their login.
    pub subject: &'a str,
    pub role: Role,
    pub name: &'a str,
    pub email: Option<&'a str>,
}

/// Result of setting a member.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum MemberSet {
    Created {
        member: Member,
    },
    Replaced {
        member: Member,
    },
    Unchanged {
        member: Member,
    },
    /// The tenant would have no admin left.
    LastAdmin,
    /// The role is above that of the caller.
    RoleAbove,
    /// Another member has the name as name, subject or address.
    NameTaken,
    /// Another member has the address.
    EmailTaken,
}

/// Result of removing a member.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum MemberGone {
    Removed(MemberRemoved),
    /// The tenant would have no admin left.
    LastAdmin,
    NotFound,
    /// `tokens_to` is not another member.
    HeirNotFound,
}

#[derive(Debug, Serialize)]
struct RemoveCall<'a> {
    subject: &'a str,
    tokens_to: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct ListCall<'a> {
    after: Option<&'a str>,
    limit: i64,
}

#[derive(Debug, Deserialize)]
struct Listed {
    rows: Vec<Member>,
    more: bool,
}

/// Makes somebody a member, or changes a member.
pub async fn member_set(session: &Session, member: &NewMember<'_>) -> Result<MemberSet, Error> {
    session.transition("select nofx.member_set($1)", member).await
}

/// Removes a member, ends their sessions, and revokes their tokens unless `tokens_to` owns them from now on.
pub async fn member_remove(session: &Session, subject: &str, tokens_to: Option<&str>) -> Result<MemberGone, Error> {
    session.transition("select nofx.member_remove($1)", &RemoveCall { subject, tokens_to }).await
}

/// Members, ordered by subject, after this one.
pub async fn member_list(session: &Session, after: Option<&str>, limit: i64) -> Result<Page<Member>, Error> {
    let listed: Listed = session.transition("select nofx.member_list($1)", &ListCall { after, limit }).await?;
    Ok(Page { items: listed.rows, more: listed.more })
}
