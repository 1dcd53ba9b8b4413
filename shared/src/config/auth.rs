//! Who may send requests: the variables of authentication.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use url::{Host, Url};

use crate::error::Error;

/// The audience of Supabase's tokens for people.
const DEFAULT_AUDIENCE: &str = "authenticated";
const DEFAULT_MAX_STALE_H: u64 = 24;
/// Ten years.
const MAX_STALE_H: u64 = 87_600;
const MAX_TEXT_BYTES: usize = 255;
/// Lambda sets each of them.
const AWS_VARIABLES: [&str; 3] = ["AWS_EXECUTION_ENV", "LAMBDA_TASK_ROOT", "AWS_LAMBDA_INITIALIZATION_TYPE"];

/// How requests are authenticated. It has no `Debug`, because it may hold a secret.
#[derive(Clone, Default)]
pub struct AuthConfig {
    /// None if `NOFX_AUTH` is not set. Then nothing can be authenticated.
    pub mode: Option<AuthMode>,
    /// Without one, only API tokens and sessions count.
    pub issuer: Option<IssuerConfig>,
    /// Where people log in with their password.
    pub login: Option<LoginConfig>,
    pub platform: Platform,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Every request without a credential is that of the person `local`. Only on a laptop.
    Local,
    On,
}

impl FromStr for AuthMode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "local" => Ok(Self::Local),
            "on" => Ok(Self::On),
            _ => Err(()),
        }
    }
}

/// Who issues the tokens of people.
#[derive(Clone)]
pub struct IssuerConfig {
    /// The `iss` of its tokens.
    pub issuer: String,
    pub audience: String,
    pub keys: KeySource,
    /// The shared secret of Supabase Local and of older projects.
    pub hs256_secret: Option<Arc<str>>,
    pub max_stale: Duration,
}

/// Where the issuer's public keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `https`, or `http` of this machine.
    Url(String),
    /// A document that never changes.
    Document(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginConfig {
    pub url: String,
    pub publishable_key: String,
}

/// What tells a laptop from AWS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    /// A variable that only Lambda sets.
    pub aws_variable: Option<&'static str>,
    pub aws_endpoint_url: Option<String>,
}

impl AuthConfig {
    /// Reads the variables. `text` gives the value of one that is set and not empty. `hs256_secret` is the secret that
    /// `AUTH_HS256_SECRET_ID` names.
    pub(super) fn read(text: impl Fn(&str) -> Option<String>, hs256_secret: Option<Arc<str>>) -> Result<Self, Error> {
        let mode = text("NOFX_AUTH").map(|mode| mode.parse()).transpose();
        let mode = mode.map_err(|()| Error::invalid("NOFX_AUTH", "must be local or on"))?;
        Ok(Self {
            mode,
            issuer: issuer(&text, hs256_secret)?,
            login: login(&text)?,
            platform: Platform {
                aws_variable: AWS_VARIABLES.into_iter().find(|name| text(name).is_some()),
                aws_endpoint_url: text("AWS_ENDPOINT_URL"),
            },
        })
    }
}

fn issuer(
    text: &impl Fn(&str) -> Option<String>,
    hs256_secret: Option<Arc<str>>,
) -> Result<Option<IssuerConfig>, Error> {
    let Some(issuer) = text("AUTH_ISSUER") else {
        let alone = ["AUTH_JWKS_URL", "AUTH_JWKS", "AUTH_AUDIENCE", "AUTH_HS256_SECRET_ID", "AUTH_JWKS_MAX_STALE_H"];
        return match alone.into_iter().find(|name| text(name).is_some()) {
            Some(name) => Err(Error::invalid(name, "needs AUTH_ISSUER, which is not set")),
            None => Ok(None),
        };
    };
    let audience = text("AUTH_AUDIENCE").unwrap_or_else(|| DEFAULT_AUDIENCE.to_owned());
    for (name, value) in [("AUTH_ISSUER", &issuer), ("AUTH_AUDIENCE", &audience)] {
        if value.len() > MAX_TEXT_BYTES || value.contains(|c: char| c.is_control()) {
            return Err(Error::invalid(name, "must have at most 255 bytes, without control characters"));
        }
    }
    let max_stale_h = text("AUTH_JWKS_MAX_STALE_H").map(|hours| hours.parse::<u64>().ok());
    let max_stale_h = max_stale_h.unwrap_or(Some(DEFAULT_MAX_STALE_H)).filter(|hours| *hours <= MAX_STALE_H);
    let max_stale_h = max_stale_h.ok_or_else(|| Error::invalid("AUTH_JWKS_MAX_STALE_H", "must be 0 to 87600 hours"))?;
    let keys = match (text("AUTH_JWKS"), text("AUTH_JWKS_URL")) {
        (Some(document), _) => KeySource::Document(document),
        (None, Some(url)) => KeySource::Url(checked_url("AUTH_JWKS_URL", &url)?),
        (None, None) => {
            let url = format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/'));
            KeySource::Url(checked_url("AUTH_ISSUER", &url)?)
        }
    };
    let max_stale = Duration::from_secs(max_stale_h * 3_600);
    Ok(Some(IssuerConfig { issuer, audience, keys, hs256_secret, max_stale }))
}

fn login(text: &impl Fn(&str) -> Option<String>) -> Result<Option<LoginConfig>, Error> {
    let (url, key) = (text("AUTH_URL"), text("AUTH_PUBLISHABLE_KEY"));
    let Some(url) = url else {
        let message = "needs AUTH_URL, which is not set";
        return key.map_or(Ok(None), |_| Err(Error::invalid("AUTH_PUBLISHABLE_KEY", message)));
    };
    let url = checked_url("AUTH_URL", url.trim_end_matches('/'))?;
    Ok(Some(LoginConfig { url, publishable_key: key.unwrap_or_default() }))
}

/// A URL that keeps what it carries: `https`, or `http` of this machine.
fn checked_url(name: &'static str, text: &str) -> Result<String, Error> {
    let url = Url::parse(text).ok().filter(|url| {
        let has_login = !url.username().is_empty() || url.password().is_some();
        (url.scheme() == "https" || is_loopback(url)) && url.has_host() && !has_login && url.fragment().is_none()
    });
    let message = "must be a URL with https, or with http of this machine, without a user and a fragment";
    url.map(|_| text.to_owned()).ok_or_else(|| Error::invalid(name, message))
}

/// Whether a URL is `http` or `https` of this machine.
pub fn is_loopback(url: &Url) -> bool {
    let is_own = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    is_own && matches!(url.scheme(), "http" | "https")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: (&str, &str) = ("AUTH_ISSUER", "https://abc.supabase.co/auth/v1");

    fn read(variables: &[(&str, &str)]) -> Result<AuthConfig, Error> {
        let text = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        AuthConfig::read(text, None)
    }

    fn error(variables: &[(&str, &str)]) -> String {
        read(variables).err().expect("an error").to_string()
    }

    #[test]
    fn nothing_is_set_by_default() {
        let config = read(&[]).unwrap();
        assert!(config.mode.is_none() && config.issuer.is_none() && config.login.is_none());
        assert_eq!(config.platform, Platform::default());
    }

    #[test]
    fn an_issuer_needs_no_other_variable() {
        let issuer = read(&[("NOFX_AUTH", "on"), ISSUER]).unwrap().issuer.unwrap();
        assert_eq!(issuer.keys, KeySource::Url("https://abc.supabase.co/auth/v1/.well-known/jwks.json".into()));
        assert_eq!((issuer.audience.as_str(), issuer.max_stale), ("authenticated", Duration::from_hours(24)));
        let slash = read(&[("AUTH_ISSUER", "http://127.0.0.1:54321/auth/v1/")]).unwrap().issuer.unwrap();
        assert_eq!(slash.issuer, "http://127.0.0.1:54321/auth/v1/", "iss is compared as it is written");
        assert_eq!(slash.keys, KeySource::Url("http://127.0.0.1:54321/auth/v1/.well-known/jwks.json".into()));
        let fixed = read(&[ISSUER, ("AUTH_JWKS", "{}"), ("AUTH_JWKS_URL", "ftp://x")]).unwrap().issuer.unwrap();
        assert_eq!(fixed.keys, KeySource::Document("{}".into()), "the document beats the URL");
    }

    #[test]
    fn a_url_that_anybody_could_read_on_the_way_is_refused() {
        for url in [
            "http://abc.supabase.co/jwks.json",
            "http://10.0.0.1/jwks.json",
            "http://127.0.0.1.evil.test/jwks.json",
            "http://localhost.evil.test/jwks.json",
            "https://user:pass@abc.supabase.co/jwks.json",
            "https://abc.supabase.co/jwks.json#x",
            "file:///etc/passwd",
            "/jwks.json",
            "abc",
        ] {
            assert!(error(&[ISSUER, ("AUTH_JWKS_URL", url)]).starts_with("AUTH_JWKS_URL: "), "{url}");
        }
        for url in ["https://keys.test/a?b=c", "http://localhost:9/j", "http://[::1]:9/j", "http://127.0.0.2/j"] {
            read(&[ISSUER, ("AUTH_JWKS_URL", url)]).unwrap();
        }
        assert!(error(&[("AUTH_ISSUER", "supabase")]).starts_with("AUTH_ISSUER: "));
        assert!(error(&[("AUTH_URL", "http://abc.supabase.co/auth/v1")]).starts_with("AUTH_URL: "));
    }

    #[test]
    fn a_variable_without_the_one_that_it_needs_is_refused() {
        for name in ["AUTH_JWKS_URL", "AUTH_JWKS", "AUTH_AUDIENCE", "AUTH_HS256_SECRET_ID", "AUTH_JWKS_MAX_STALE_H"] {
            assert_eq!(error(&[(name, "x")]), format!("{name}: needs AUTH_ISSUER, which is not set"));
        }
        assert_eq!(error(&[("AUTH_PUBLISHABLE_KEY", "k")]), "AUTH_PUBLISHABLE_KEY: needs AUTH_URL, which is not set");
        assert_eq!(error(&[("NOFX_AUTH", "off")]), "NOFX_AUTH: must be local or on");
        assert_eq!(error(&[("NOFX_AUTH", "Local")]), "NOFX_AUTH: must be local or on");
        for hours in ["-1", "1.5", "87601", "x", "99999999999999999999"] {
            assert!(error(&[ISSUER, ("AUTH_JWKS_MAX_STALE_H", hours)]).starts_with("AUTH_JWKS_MAX_STALE_H: "));
        }
    }

    #[test]
    fn lambda_is_known_by_any_of_its_variables() {
        for name in AWS_VARIABLES {
            assert_eq!(read(&[(name, "x")]).unwrap().platform.aws_variable, Some(name));
        }
    }
}
