//! The requests that start a session, create a token, or set or remove a member.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::fields::{self, Fields, Most, Names};
use super::hidden::Lines;
use super::principal::{Kind, Permission, Role};

/// Fields of a session.
pub const SESSION_FIELDS: &[Names] = &[&["name"], &["expires_in_s"]];
/// Fields of a token.
pub const TOKEN_FIELDS: &[Names] = &[&["kind"], &["name"], &["role"], &["owner"], &["scopes"], &["expires_in_s"]];
/// Fields of a member.
pub const MEMBER_FIELDS: &[Names] = &[&["role"], &["name"], &["email"]];
/// Fields of a removal.
pub const REMOVAL_FIELDS: &[Names] = &[&["tokens_to"]];

/// How long a session may last: a minute to 30 days. 12 hours by default.
pub const SESSION_S: RangeInclusive<u64> = 60..=2_592_000;
pub const DEFAULT_SESSION_S: u32 = 43_200;
/// How long a token may last: a minute to 366 days. 90 days by default.
pub const TOKEN_S: RangeInclusive<u64> = 60..=31_622_400;
pub const DEFAULT_TOKEN_S: u32 = 7_776_000;
pub const MAX_TOKEN_NAME: usize = 63;
pub const MAX_NAME_CHARS: usize = 200;
pub const MAX_EMAIL_BYTES: usize = 320;
pub const MAX_SUBJECT_BYTES: usize = 255;
/// A pattern of the names of tokens.
pub const TOKEN_NAME: &str = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$";

/// The session of a person who has just logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    /// Name of the session in lists.
    pub name: String,
    pub expires_in_s: u32,
}

/// A token of an agent or a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    pub kind: Kind,
    pub name: String,
    pub role: Role,
    /// Subject or e-mail address of the member who owns it. None: its creator.
    pub owner: Option<String>,
    /// None: all permissions of the role.
    pub scopes: Option<Vec<Permission>>,
    pub expires_in_s: u32,
}

/// The new role, name and e-mail address of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRequest {
    pub role: Role,
    pub name: String,
    pub email: Option<String>,
}

impl SessionRequest {
    /// Reads [`SESSION_FIELDS`].
    pub fn read(fields: &mut Fields<'_, '_>) -> Self {
        let name = fields.readable("name", Most::Chars(MAX_NAME_CHARS), Lines::One).unwrap_or("session").to_owned();
        Self { name, expires_in_s: fields.whole("expires_in_s", SESSION_S).unwrap_or(DEFAULT_SESSION_S) }
    }
}

impl TokenRequest {
    /// Reads [`TOKEN_FIELDS`].
    pub fn read(fields: &mut Fields<'_, '_>) -> Option<Self> {
        fields.require(&["kind", "name", "role"]);
        let kind = fields.read("kind", |value| match value.as_str().and_then(Kind::parse) {
            Some(kind @ (Kind::Agent | Kind::Service)) => Ok(kind),
            _ => Err("must be agent or service".to_owned()),
        });
        let name = fields.read("name", |value| token_name(value.as_str().unwrap_or_default()));
        let role = role(fields);
        let owner =
            fields.readable("owner", Most::Bytes(MAX_EMAIL_BYTES), Lines::One).map(|owner| owner.trim().to_owned());
        let has_scopes = fields.value("scopes").is_some();
        let scopes = fields.list("scopes", Permission::ALL.len(), scope);
        if has_scopes && scopes.is_empty() {
            fields.problem("scopes", "must not be empty; leave it out for all permissions of the role");
        }
        let expires_in_s = fields.whole("expires_in_s", TOKEN_S).unwrap_or(DEFAULT_TOKEN_S);
        Some(Self { kind: kind?, name: name?, role: role?, owner, scopes: has_scopes.then_some(scopes), expires_in_s })
    }
}

impl MemberRequest {
    /// Reads [`MEMBER_FIELDS`]. The default of the name is the e-mail address, else the subject.
    pub fn read(fields: &mut Fields<'_, '_>, subject: &str) -> Option<Self> {
        fields.require(&["role"]);
        let email = fields.read("email", email).map(str::to_owned);
        let name = fields.read("name", member_name);
        let name = name.or(email.as_deref()).unwrap_or(subject).to_owned();
        Some(Self { role: role(fields)?, name, email })
    }
}

/// Checks a `sub` that an admin entered. The error says what is valid.
pub fn subject(text: &str) -> Result<&str, String> {
    let fits = !text.is_empty() && text.len() <= MAX_SUBJECT_BYTES;
    if !fits || text.trim() != text || is_of_program(text) {
        return Err(format!("must be the sub of a person's login: 1 to {MAX_SUBJECT_BYTES} bytes"));
    }
    fields::readable(text, Lines::One)
}

/// The name of a token without spaces around it.
pub fn token_name(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric();
    let fits = text.len() <= MAX_TOKEN_NAME
        && text.bytes().next().is_some_and(is_plain)
        && text.bytes().all(|byte| is_plain(byte) || b"._-".contains(&byte));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("must be 1 to {MAX_TOKEN_NAME} letters, digits, dots, underscores and dashes"))
    }
}

fn role(fields: &mut Fields<'_, '_>) -> Option<Role> {
    fields.read("role", |value| {
        let role = value.as_str().and_then(Role::parse);
        role.ok_or_else(|| "must be viewer, operator, approver or admin".to_owned())
    })
}

fn scope(value: &Value) -> Result<Permission, String> {
    let permission = value.as_str().and_then(Permission::parse).filter(|one| *one != Permission::Public);
    permission.ok_or_else(|| "must be a permission, such as runs.read".to_owned())
}

const OF_PROGRAM: &str = "must not begin with agent:, service: or database:";

fn member_name(value: &Value) -> Result<&str, String> {
    let name = fields::readable(fields::filled(value, Most::Chars(MAX_NAME_CHARS))?, Lines::One)?;
    if is_of_program(name) { Err(OF_PROGRAM.to_owned()) } else { Ok(name) }
}

fn email(value: &Value) -> Result<&str, String> {
    let text = fields::readable(fields::filled(value, Most::Bytes(MAX_EMAIL_BYTES))?, Lines::One)?;
    let is_address = text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    if !is_address || text.contains(char::is_whitespace) {
        return Err("must be an e-mail address".to_owned());
    }
    // It is the default of the name.
    if is_of_program(text) { Err(OF_PROGRAM.to_owned()) } else { Ok(text) }
}

/// Whether a name looks like that of an agent, a service or a database login in records.
fn is_of_program(text: &str) -> bool {
    let text = text.trim_start().to_ascii_lowercase();
    ["agent:", "service:", "database:"].iter().any(|start| text.starts_with(start))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::fields::{Null, read};

    fn token(value: &Value) -> Result<TokenRequest, Vec<String>> {
        read(value, "", TOKEN_FIELDS, Null::Absent, TokenRequest::read).map_err(|problems| {
            problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
        })
    }

    #[test]
    fn a_token_has_a_plain_name_and_a_bounded_life() {
        let ci = token(&json!({"kind": "service", "name": " ci.main ", "role": "operator"})).unwrap();
        assert_eq!((ci.name.as_str(), ci.scopes, ci.expires_in_s), ("ci.main", None, DEFAULT_TOKEN_S));
        let scoped =
            json!({"kind": "agent", "name": "a", "role": "viewer", "scopes": ["runs.read"], "expires_in_s": 60});
        assert_eq!(token(&scoped).unwrap().scopes, Some(vec![Permission::RunsRead]));
        let wrong = json!({"kind": "person", "name": "-", "role": "root", "scopes": ["public", 1], "expires_in_s": 59});
        let paths = |problems: Vec<String>| -> Vec<String> {
            problems.iter().map(|problem| problem.split(':').next().unwrap_or_default().to_owned()).collect()
        };
        let expected = ["kind", "name", "role", "scopes[0]", "scopes[1]", "scopes", "expires_in_s"];
        assert_eq!(paths(token(&wrong).unwrap_err()), expected);
        for name in ["", " ", "a b", "ä", "a:b", &"a".repeat(64)] {
            assert!(token_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn nobody_can_be_named_like_a_program() {
        let member =
            |value: Value| read(&value, "", MEMBER_FIELDS, Null::Absent, |fields| MemberRequest::read(fields, "sub-1"));
        let named = |value: Value| member(value).unwrap().name;
        assert_eq!(named(json!({"role": "viewer", "name": "Ann"})), "Ann");
        assert_eq!(named(json!({"role": "viewer", "email": "ann@acme.test"})), "ann@acme.test");
        assert_eq!(named(json!({"role": "viewer"})), "sub-1");
        for name in ["agent:ci", " Service:x", "database:postgres", "a\u{202e}b", ""] {
            assert!(member(json!({"role": "viewer", "name": name})).is_err(), "{name}");
        }
        for email in ["ann", "@x", "a@", "a b@c", "agent:ci@acme.test"] {
            assert!(member(json!({"role": "viewer", "email": email})).is_err(), "{email}");
        }
        for wrong in ["", "agent:ci", " ann", "a\u{0}", &"a".repeat(256)] {
            assert!(subject(wrong).is_err(), "{wrong}");
        }
        assert_eq!(subject("0b1f-ann@x"), Ok("0b1f-ann@x"));
    }

    #[test]
    fn a_session_is_short_unless_its_person_asks() {
        let session =
            |value: Value| read(&value, "", SESSION_FIELDS, Null::Absent, |fields| Some(SessionRequest::read(fields)));
        let expected = SessionRequest { name: "session".into(), expires_in_s: 43_200 };
        assert_eq!(session(json!({})), Ok(expected));
        assert!(session(json!({"expires_in_s": 2_592_001})).is_err());
    }
}
