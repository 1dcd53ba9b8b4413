//! Who sends requests: the caller itself, sessions, API tokens and members.

use serde::{Deserialize, Serialize};

use crate::domain::{Kind, Permission, Role, TenantId, Timestamp, TokenId};

/// The answer of `GET /whoami`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Whoami {
    pub tenant: TenantId,
    /// The `sub` of a person's login, `agent:NAME` or `service:NAME`.
    pub subject: String,
    /// For people to read.
    pub name: String,
    pub kind: Kind,
    pub role: Role,
    /// The token or session of the request.
    pub token_id: Option<TokenId>,
    /// The member who owns the token.
    pub owner: String,
    /// Whether the tenant is that of one person on a laptop.
    pub solo: bool,
    /// When the token or session expires.
    pub expires_at: Option<Timestamp>,
    /// What the caller may do.
    pub permissions: Vec<Permission>,
}

/// How to log in: the answer of `GET /auth/config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct AuthSettings {
    /// `local`: requests need no credential. `on`: they do.
    pub mode: String,
    /// Who issues the tokens of people, if anybody does.
    pub issuer: Option<String>,
    /// Where people log in with a password: `POST {auth_url}/token?grant_type=password`.
    pub auth_url: Option<String>,
    /// The header `apikey` of that request. It is public.
    pub publishable_key: Option<String>,
}

/// A new session or token. This is the only answer with its secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct TokenCreated {
    pub id: TokenId,
    /// Send it as `Authorization: Bearer TOKEN`. It cannot be read again.
    pub token: String,
    pub expires_at: Timestamp,
}

/// The end of a session or a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct TokenEnded {
    /// `ended` or `revoked`; `unchanged` if there was nothing to end.
    pub result: String,
}

/// An API token, or a session of a person, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Token {
    pub id: TokenId,
    pub kind: Kind,
    /// `agent:NAME`, `service:NAME`, or the name of a session.
    pub name: String,
    pub subject: String,
    /// The `sub` of the member who owns it.
    pub owner: String,
    /// None for a session, which has the role of its member.
    pub role: Option<Role>,
    /// The permissions that limit it. None: all of its role.
    pub scopes: Option<Vec<Permission>>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    pub revoked_by: Option<String>,
    /// Up to five minutes late.
    pub last_used_at: Option<Timestamp>,
    pub last_used_ip: Option<String>,
    /// Whether it is valid now.
    pub live: bool,
}

/// A page of tokens, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct TokenPage {
    pub tokens: Vec<Token>,
    /// `after` of the next page.
    pub next: Option<TokenId>,
}

/// A person of the tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Member {
    /// The `sub` of the person's login.
    pub subject: String,
    pub role: Role,
    /// For people to read.
    pub name: String,
    /// As an admin entered it.
    pub email: Option<String>,
    pub created_at: Timestamp,
    pub created_by: String,
}

/// A page of members, ordered by subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct MemberPage {
    pub members: Vec<Member>,
    /// `after` of the next page.
    pub next: Option<String>,
}

/// What a removal ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct MemberRemoved {
    /// The sessions that ended.
    pub sessions: u32,
    /// The tokens that were revoked, because the member owned them.
    pub tokens: u32,
    /// The tokens that another member owns now.
    pub tokens_moved: u32,
}
