//! Who sends a request: API tokens, sessions and JSON web tokens, checked without the database.
//!
//! An [`Authenticator`] checks form and signature. The database checks whether a token is revoked and what its owner may do,
//! in the statement that the request sends anyway: see [`Caller`].
//!
//! The credential of a request is in `Nofx-Authorization: Bearer`, else in `Authorization: Bearer`, else in the session
//! cookie, if the route accepts one. The first header is for APIs whose gateway needs `Authorization` for itself. A request
//! with a bearer credential in both headers is refused, because a proxy could check the other one.

#[cfg(test)]
mod forge;
#[cfg(test)]
mod hostile;
mod issuer;
mod jwks;
mod jws;
mod jwt;
mod key;
mod link;
mod local;
mod password;
mod token;

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, header};

pub use jwks::{Clock, Jwks, KeyStore, Stored, Timing, system_clock};
pub use jws::Compact;
pub use jwt::{Person, Rules};
pub use key::{Algorithm, Key, KeySet};
pub use link::LinkToken;
pub use password::password_login;
pub use token::ApiToken;

use crate::config::{AuthConfig, AuthMode, IssuerConfig, KeySource};
use crate::domain::principal::Via;
use crate::domain::{Caller, Kind, TenantId};
use crate::error::Error;

/// The header for a credential if the gateway needs `Authorization`.
pub static NOFX_AUTHORIZATION: HeaderName = HeaderName::from_static("nofx-authorization");

/// Why a credential is refused: a code for the log. Clients get the same answer for every reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// Why a request has no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It has no credential.
    Missing,
    /// Its credential is not valid.
    Invalid(Refused),
}

impl Denied {
    /// The reason for the log. It contains no part of the credential.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid(Refused(reason)) => reason,
        }
    }
}

impl From<Denied> for Error {
    fn from(_: Denied) -> Self {
        Self::Unauthenticated
    }
}

impl From<Refused> for Denied {
    fn from(refused: Refused) -> Self {
        Self::Invalid(refused)
    }
}

/// What the function knows about a request besides its headers.
#[derive(Debug, Clone, Default)]
pub struct RequestOrigin<'a> {
    pub ip: Option<IpAddr>,
    pub request_id: &'a str,
    /// The value of the session's cookie. Only routes of pages have it.
    pub session_cookie: Option<&'a str>,
}

/// Checks credentials.
pub struct Authenticator {
    mode: Mode,
    home: TenantId,
    clock: Clock,
}

enum Mode {
    Local,
    On(Option<Box<Logins>>),
}

/// What verifies JSON web tokens.
struct Logins {
    rules: Rules,
    keys: Jwks,
    secret: Option<Key>,
}

impl Authenticator {
    /// `home` is the tenant of a person whose token names none, and that of the local mode. `key_store` keeps the issuer's
    /// keys. An error if the mode is not set, or if the local mode is set and the process is not on a local stack.
    pub fn new(config: &AuthConfig, home: TenantId, key_store: Option<KeyStore>) -> Result<Self, Error> {
        Self::with_clock(config, home, key_store, Timing::default(), system_clock())
    }

    /// The same with other timing and another clock.
    pub fn with_clock(
        config: &AuthConfig,
        home: TenantId,
        key_store: Option<KeyStore>,
        timing: Timing,
        clock: Clock,
    ) -> Result<Self, Error> {
        let mode = match config.mode {
            None => return Err(Error::invalid("NOFX_AUTH", "is not set; set it to on, or on a laptop to local")),
            Some(AuthMode::Local) => {
                local::check(config)?;
                Mode::Local
            }
            Some(AuthMode::On) => {
                let logins = config.issuer.as_ref().map(|issuer| Logins::new(issuer, &home, key_store, timing, &clock));
                Mode::On(logins.transpose()?.map(Box::new))
            }
        };
        Ok(Self { mode, home, clock })
    }

    /// Whether requests need no credential.
    pub fn is_local(&self) -> bool {
        matches!(self.mode, Mode::Local)
    }

    /// The caller, as far as the request proves it. It never uses the database. It waits for the network only if the key is
    /// unknown.
    pub async fn identify(&self, headers: &HeaderMap, origin: &RequestOrigin<'_>) -> Result<Caller, Denied> {
        let caller = |tenant: TenantId, subject: String, via: Via| Caller {
            tenant,
            subject,
            via,
            ip: origin.ip,
            request_id: origin.request_id.to_owned(),
        };
        let credential = match credential(headers, origin.session_cookie) {
            Err(Denied::Missing) if matches!(self.mode, Mode::Local) => {
                let host = only(headers, &header::HOST)?.ok_or(Refused("host"))?;
                if !local::is_local_host(host) {
                    return Err(Refused("host").into());
                }
                return Ok(caller(self.home.clone(), Caller::LOCAL.to_owned(), Via::Local));
            }
            other => other?,
        };
        match credential {
            Credential::Token(token) => {
                let via = Via::Token { id: token.id, kind: token.kind, hash: token.hash() };
                Ok(caller(token.tenant, token.id.to_string(), via))
            }
            Credential::Jwt(text) => {
                let Mode::On(Some(logins)) = &self.mode else { return Err(Refused("no_issuer").into()) };
                let now_s = i64::try_from((self.clock)().as_secs()).unwrap_or(i64::MAX);
                let person = logins.verify(text, now_s).await?;
                Ok(caller(person.tenant, person.subject, Via::Jwt(person.login)))
            }
        }
    }
}

impl Logins {
    fn new(
        config: &IssuerConfig,
        home: &TenantId,
        key_store: Option<KeyStore>,
        timing: Timing,
        clock: &Clock,
    ) -> Result<Self, Error> {
        let keys = match &config.keys {
            KeySource::Document(document) => {
                Jwks::fixed(document).map_err(|reason| Error::invalid("AUTH_JWKS", reason))?
            }
            KeySource::Url(url) => {
                let timing = Timing { max_stale: config.max_stale, ..timing };
                Jwks::of_endpoint(url, timing, clock.clone(), key_store)?
            }
        };
        let secret = config.hs256_secret.as_deref().map(|secret| Key::hs256(secret.as_bytes()));
        let secret = secret.transpose().map_err(|reason| Error::invalid("AUTH_HS256_SECRET_ID", reason))?;
        let rules = Rules { issuer: config.issuer.clone(), audience: config.audience.clone(), home: home.clone() };
        Ok(Self { rules, keys, secret })
    }

    async fn verify(&self, text: &str, now_s: i64) -> Result<Person, Refused> {
        let token = Compact::parse(text)?;
        if token.algorithm() == Algorithm::Hs256 {
            let secret = self.secret.as_ref().ok_or(Refused("algorithm"))?;
            return jwt::verify(token, secret, &self.rules, now_s);
        }
        let key = self.keys.get(token.kid().ok_or(Refused("kid"))?).await?;
        jwt::verify(token, &key, &self.rules, now_s)
    }
}

/// A credential of valid form.
enum Credential<'a> {
    Token(ApiToken),
    Jwt(&'a str),
}

fn credential<'a>(headers: &'a HeaderMap, session_cookie: Option<&'a str>) -> Result<Credential<'a>, Denied> {
    let own = only(headers, &NOFX_AUTHORIZATION)?;
    let usual = only(headers, &header::AUTHORIZATION)?;
    let text = match (own, usual) {
        (Some(_), Some(usual)) if usual.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("Bearer")) => {
            return Err(Refused("two_credentials").into());
        }
        (Some(own), _) => bearer(own)?,
        (None, Some(usual)) => bearer(usual)?,
        (None, None) => {
            let session = session_cookie.ok_or(Denied::Missing)?;
            let token = ApiToken::parse(session).filter(|token| token.kind == Kind::Person);
            return Ok(Credential::Token(token.ok_or(Refused("session"))?));
        }
    };
    if text.starts_with(token::PREFIX) {
        return Ok(Credential::Token(ApiToken::parse(text).ok_or(Refused("token"))?));
    }
    Ok(Credential::Jwt(text))
}

/// The value of a header that may occur once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refused> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(text)), None) => Ok(Some(text)),
        _ => Err(Refused("header")),
    }
}

/// The text after `Bearer` and one space. Schemes are case-insensitive (RFC 9110, section 11.1).
fn bearer(value: &str) -> Result<&str, Refused> {
    let (scheme, text) = value.split_once(' ').ok_or(Refused("scheme"))?;
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(Refused("scheme"));
    }
    let is_one_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    if is_one_word { Ok(text) } else { Err(Refused("credential")) }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
