//! Protects forms against cross-site request forgery. It checks the headers with which browsers report the sender, and
//! a token that must be both in the form and in a cookie, which other sites can neither read nor set.

use axum::http::{HeaderMap, HeaderValue, header};
use shared::http::{Sender, header_text, sender};
use uuid::Uuid;

/// The token for a page's forms. `set_cookie` is set if the browser does not have the cookie yet.
pub struct Token {
    pub value: String,
    pub set_cookie: Option<HeaderValue>,
}

const PLAIN_COOKIE: &str = "nofx-csrf";
/// Browsers accept this prefix only over TLS and from the host itself, so no other subdomain can set the cookie.
const HOST_COOKIE: &str = "__Host-nofx-csrf";

/// The token in the cookie, or a new one.
pub fn token(headers: &HeaderMap) -> Token {
    if let Some(value) = cookie(headers) {
        return Token { value: value.to_owned(), set_cookie: None };
    }
    let value = Uuid::new_v4().simple().to_string();
    let secure = if over_tls(headers) { "; Secure" } else { "" };
    let cookie = format!("{}={value}; Path=/; SameSite=Strict; HttpOnly{secure}", cookie_name(headers));
    Token { value, set_cookie: cookie.parse().ok() }
}

/// Rejects a form that was not sent from one of our pages. The error is a sentence for the user.
pub fn check(headers: &HeaderMap, public_url: Option<&str>, in_form: &str) -> Result<(), &'static str> {
    // Stricter than the check for other routes: a form must come from one of our pages.
    if sender(headers, public_url) != Sender::Own {
        return Err("The form was sent from another site. Nothing was changed.");
    }
    match cookie(headers) {
        // The sender knows both values, so a timing attack reveals nothing.
        Some(in_cookie) if in_cookie == in_form => Ok(()),
        Some(_) => Err("The form is older than your session. Nothing was changed. Send it again."),
        None => Err("The form was sent without its cookie. Nothing was changed. Allow cookies and send it again."),
    }
}

/// Whether the browser reached the console over TLS.
pub fn over_tls(headers: &HeaderMap) -> bool {
    header_text(headers, "x-forwarded-proto") == Some("https")
}

fn cookie_name(headers: &HeaderMap) -> &'static str {
    if over_tls(headers) { HOST_COOKIE } else { PLAIN_COOKIE }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let name = cookie_name(headers);
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, value)| *key == name && is_token(value))
        .map(|(_, value)| value)
}

fn is_token(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn with_cookie(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = headers(pairs);
        headers.insert("cookie", format!("theme=dark; {PLAIN_COOKIE}={TOKEN}").parse().unwrap());
        headers
    }

    #[test]
    fn only_a_form_of_our_own_pages_is_accepted() {
        assert_eq!(check(&with_cookie(&[("sec-fetch-site", "same-origin")]), None, TOKEN), Ok(()));
        let own = with_cookie(&[("origin", "http://nofx.test:3000"), ("host", "NOFX.test:3000")]);
        assert_eq!(check(&own, None, TOKEN), Ok(()));
        let others: &[&[(&'static str, &str)]] =
            &[&[], &[("sec-fetch-site", "none")], &[("origin", "https://evil.test")]];
        for pairs in others {
            assert!(check(&with_cookie(pairs), Some("https://nofx.test"), TOKEN).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn a_wrong_or_missing_token_is_rejected() {
        let own = [("sec-fetch-site", "same-origin")];
        for in_form in ["", OTHER] {
            assert!(check(&with_cookie(&own), None, in_form).is_err());
            assert!(check(&headers(&own), None, in_form).is_err());
        }
        // Two empty tokens do not match.
        let mut empty = headers(&own);
        empty.insert("cookie", format!("{PLAIN_COOKIE}=").parse().unwrap());
        assert!(check(&empty, None, "").is_err());
    }

    #[test]
    fn over_tls_only_the_host_cookie_is_accepted() {
        let made = token(&headers(&[("x-forwarded-proto", "https")]));
        let cookie = made.set_cookie.unwrap();
        let cookie = cookie.to_str().unwrap();
        assert_eq!(cookie, format!("{HOST_COOKIE}={}; Path=/; SameSite=Strict; HttpOnly; Secure", made.value));
        // A cookie that another subdomain set over plain HTTP.
        let foreign = with_cookie(&[("sec-fetch-site", "same-origin"), ("x-forwarded-proto", "https")]);
        assert!(check(&foreign, None, TOKEN).is_err());
    }

    #[test]
    fn the_token_of_the_cookie_is_reused() {
        let reused = token(&with_cookie(&[]));
        assert_eq!(reused.value, TOKEN);
        assert!(reused.set_cookie.is_none());
    }
}
