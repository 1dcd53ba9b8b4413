//! The token with which the command identifies itself to the API.

use std::env;
use std::fmt;

use anyhow::Result;
use nofx_local::report::{hinted, printable};
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use shared::config::is_loopback;

use crate::client::error::ApiError;

/// The header of the token. `Authorization` belongs to the signature of API Gateway.
pub const HEADER: HeaderName = HeaderName::from_static("nofx-authorization");
const VARIABLE: &str = "NOFX_TOKEN";

/// An API token or a session. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// The token in `NOFX_TOKEN`, if there is one.
    pub fn from_env() -> Result<Option<Self>> {
        let text = env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
        text.map(|text| Self::parse(&text)).transpose()
    }

    /// Fails for a text that cannot be a token, without showing it.
    pub fn parse(text: &str) -> Result<Self> {
        Self::named(VARIABLE, text)
    }

    /// The same for a text from elsewhere, which the error names.
    pub fn named(source: &str, text: &str) -> Result<Self> {
        let text = text.trim();
        let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let value = is_word.then(|| HeaderValue::try_from(format!("Bearer {text}"))).and_then(Result::ok);
        let mut value = value.ok_or_else(|| {
            hinted(format!("{source} is not a token"), "a token is one word, such as nofx_service_.._..")
        })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The value of the header.
    pub fn value(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Whether a secret may go to this address: over https, or to this machine.
pub fn may_go_to(url: &Url) -> bool {
    url.scheme() == "https" || is_loopback(url)
}

/// Fails if a token for the API at this address would be sent in the clear to another machine.
pub fn check_way(api_url: &str) -> Result<()> {
    // What is no URL has its own error.
    let Some(url) = Url::parse(api_url).ok().filter(|url| !may_go_to(url)) else { return Ok(()) };
    let encrypted = printable(&url.as_str().trim_end_matches('/').replacen("http:", "https:", 1));
    let problem = "is not encrypted: a token is sent only over https, or to this machine";
    let hint = format!("use https: set NOFX_API_URL to {encrypted}, or run nofx profile add NAME {encrypted}");
    Err(ApiError::refused(format!("{} {problem}", printable(api_url)), hint).into())
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_is_never_shown() {
        let token = Token::parse(" nofx_service_abc_secret\n").unwrap();
        assert_eq!(token.value().to_str().unwrap(), "Bearer nofx_service_abc_secret");
        assert!(!format!("{token:?} {:?}", token.value()).contains("secret"));
        for wrong in ["", " ", "secret word", "secret\nline", "secret\u{e9}"] {
            let error = Token::parse(wrong).unwrap_err().to_string();
            assert_eq!(error, "NOFX_TOKEN is not a token");
        }
    }

    #[test]
    fn a_token_goes_over_https_or_stays_on_this_machine() {
        let may = |url: &str| may_go_to(&Url::parse(url).unwrap());
        for own in [
            "https://api.test",
            "https://192.0.2.1:8443/prod",
            "http://127.0.0.1:3000",
            "http://127.255.1.2",
            "http://[::1]:3000",
            "http://localhost:3000/x",
            "http://LOCALHOST",
            "http://2130706433",
        ] {
            assert!(may(own), "{own}");
        }
        for open in [
            "http://api.test",
            "http://192.168.0.1:3000",
            "http://0.0.0.0:3000",
            "http://128.0.0.1",
            "http://[::]:3000",
            "http://[::ffff:192.0.2.1]",
            "http://localhost.evil.test",
            "http://evil.test/localhost",
            "http://127.0.0.1@evil.test",
            "http://127.0.0.1.evil.test",
            "ftp://127.0.0.1",
        ] {
            assert!(!may(open), "{open}");
        }
    }
}
