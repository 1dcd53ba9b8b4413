//! A login with a password at the issuer of people's tokens: Supabase Auth, or another one with its password grant.

use std::time::Duration;

use anyhow::{Result, bail};
use nofx_local::report::{hinted, printable};
use reqwest::redirect::Policy;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::json;

use crate::client::error::truncated;
use crate::client::token;

/// How long the issuer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the issuer answers. The refresh token is not used: a session of the API takes its place.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
}

/// What it answers instead.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refused {
    error_description: Option<String>,
    msg: Option<String>,
}

/// The place of the password grant, if a password may go there.
pub fn grant_url(auth_url: &str) -> Result<Url> {
    let url = Url::parse(&format!("{}/token?grant_type=password", auth_url.trim_end_matches('/')))?;
    if token::may_go_to(&url) {
        return Ok(url);
    }
    bail!("the API sends logins to {}, which is neither https nor this machine", printable(auth_url))
}

/// The JSON web token of a person with this password.
pub async fn login(grant: Url, publishable_key: Option<&str>, email: &str, password: &str) -> Result<String> {
    let place = grant.origin().ascii_serialization();
    let http = reqwest::Client::builder().timeout(TIMEOUT).redirect(Policy::none()).build()?;
    let mut request = http.post(grant).json(&json!({"email": email, "password": password}));
    if let Some(key) = publishable_key.filter(|key| !key.is_empty()) {
        request = request.header("apikey", key);
    }
    let unanswered = |_| hinted(format!("{place}, where people log in, does not answer"), "try again in a moment");
    let response = request.send().await.map_err(unanswered)?;
    let (status, text) = (response.status(), response.text().await.map_err(unanswered)?);
    if status.is_success() {
        return match serde_json::from_str::<Granted>(&text) {
            Ok(granted) => Ok(granted.access_token),
            Err(_) => bail!("{place} answers a login without a token"),
        };
    }
    let refused: Refused = serde_json::from_str(&text).unwrap_or_default();
    let why = refused.error_description.or(refused.msg).unwrap_or_default();
    let said = if why.is_empty() { format!("it answers {status}") } else { truncated(&why) };
    if matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::UNPROCESSABLE_ENTITY) {
        let hint = "check the e-mail address and the password";
        return Err(hinted(format!("{place} refuses the login: {said}"), hint));
    }
    bail!("{place} cannot log you in now: {said}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_over_https_or_stays_on_this_machine() {
        let place = |text| grant_url(text).map(String::from).map_err(|error| error.to_string());
        assert_eq!(
            place("https://abc.supabase.co/auth/v1/"),
            Ok("https://abc.supabase.co/auth/v1/token?grant_type=password".into())
        );
        assert!(place("http://127.0.0.1:9999/auth/v1").is_ok());
        for wrong in ["http://auth.test/auth/v1", "ftp://127.0.0.1/x", "x"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
