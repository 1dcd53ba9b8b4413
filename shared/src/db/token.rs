//! API tokens, sessions, and who a caller is.

use serde::{Deserialize, Serialize};

use super::page::Page;
use super::session::Session;
use crate::domain::{Kind, Permission, Role, Timestamp, TokenId};
use crate::error::Error;
use crate::view::{Token, Whoami};

/// A session to start.
#[derive(Debug, Serialize)]
pub struct NewSession<'a> {
    pub id: TokenId,
    /// Name of the session in lists.
    pub name: &'a str,
    /// In hex. The database never gets the secret.
    pub secret_sha256: String,
    pub expires_in_s: u32,
}

/// A token to create.
#[derive(Debug, Serialize)]
pub struct NewToken<'a> {
    pub id: TokenId,
    /// An agent or a service.
    pub kind: Kind,
    pub name: &'a str,
    pub role: Role,
    /// Subject or e-mail address of the member who owns it. None: its creator.
    pub owner: Option<&'a str>,
    /// None: all permissions of the role.
    pub scopes: Option<&'a [Permission]>,
    /// In hex. The database never gets the secret.
    pub secret_sha256: String,
    pub expires_in_s: u32,
}

/// Result of creating a token or a session.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum TokenMade {
    Created {
        expires_at: Timestamp,
    },
    /// The role is higher than that of the creator.
    RoleAbove,
    /// No member has this subject or e-mail address.
    OwnerUnknown,
    /// The role is higher than that of the owner.
    RoleAboveOwner,
    /// The role and kind do not have these permissions.
    ScopeOutside {
        scopes: Vec<String>,
    },
}

/// Result of ending a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum SessionEnded {
    Ended,
    /// The caller has no session.
    Unchanged,
}

/// Result of revoking a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum TokenRevoked {
    Revoked,
    /// It was revoked before.
    Unchanged,
    NotFound,
}

#[derive(Debug, Serialize)]
struct NoInput {}

#[derive(Debug, Serialize)]
struct RevokeCall {
    id: TokenId,
}

#[derive(Debug, Serialize)]
struct ListCall {
    sessions: bool,
    after: Option<TokenId>,
    limit: i64,
}

#[derive(Debug, Deserialize)]
struct Listed {
    rows: Vec<Token>,
    more: bool,
    known: bool,
}

/// Who the caller is, and what it may do.
pub async fn whoami(session: &Session) -> Result<Whoami, Error> {
    session.transition("select nofx.whoami($1)", &NoInput {}).await
}

/// Starts a session of the caller, who must have logged in with this request.
pub async fn session_create(session: &Session, new: &NewSession<'_>) -> Result<TokenMade, Error> {
    session.transition("select nofx.session_create($1)", new).await
}

/// Ends the session that the caller uses.
pub async fn session_end(session: &Session) -> Result<SessionEnded, Error> {
    session.transition("select nofx.session_end($1)", &NoInput {}).await
}

/// Creates a token.
pub async fn token_create(session: &Session, new: &NewToken<'_>) -> Result<TokenMade, Error> {
    session.transition("select nofx.token_create($1)", new).await
}

/// Revokes a token or a session.
pub async fn token_revoke(session: &Session, id: TokenId) -> Result<TokenRevoked, Error> {
    session.transition("select nofx.token_revoke($1)", &RevokeCall { id }).await
}

/// Tokens of agents and services, or else sessions of people, newest first, after the one with the id `after`. None if there
/// is no such token.
pub async fn token_list(
    session: &Session,
    sessions: bool,
    after: Option<TokenId>,
    limit: i64,
) -> Result<Option<Page<Token>>, Error> {
    let listed: Listed = session.transition("select nofx.token_list($1)", &ListCall { sessions, after, limit }).await?;
    Ok(listed.known.then_some(Page { items: listed.rows, more: listed.more }))
}
