//! The token with which the command identifies itself to the API.

use std::env;
use std::fmt;

use anyhow::Result;
use nofx_local::report::hinted;
use reqwest::header::{HeaderName, HeaderValue};

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
}
