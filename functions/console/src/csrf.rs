//! Protects forms against cross-site request forgery. It checks the headers with which browsers report the sender, and
//! a token in the form, which other sites cannot know. The token of somebody who has logged in follows from their session.
//! Without a session it must be both in the form and in a cookie, which other sites can neither read nor set.

use axum::http::{HeaderMap, HeaderValue};
use shared::auth::ApiToken;
use shared::http::{Sender, cookies, over_tls, sender, session_cookie};
use uuid::Uuid;

/// The token for a page's forms. `set_cookie` is set if the browser does not have the cookie yet.
pub struct Token {
    pub value: String,
    pub set_cookie: Option<HeaderValue>,
}

const PLAIN_COOKIE: &str = "nofx-csrf";
/// Browsers accept this prefix only over TLS and from the host itself, so no other subdomain can set the cookie.
const HOST_COOKIE: &str = "__Host-nofx-csrf";

const FOREIGN: &str = "The form was sent from another site. Nothing was changed.";
const OLD: &str = "The form is older than your session. Nothing was changed. Send it again.";

/// The token of the session, or that in the cookie, or a new one.
pub fn token(headers: &HeaderMap) -> Token {
    match session(headers) {
        Some(session) => Token { value: session.form_token(), set_cookie: None },
        None => login_token(headers),
    }
}

/// The token for the login form, which starts a session: the one in the cookie, or a new one.
pub fn login_token(headers: &HeaderMap) -> Token {
    if let Some(value) = cookie(headers) {
        return Token { value: value.to_owned(), set_cookie: None };
    }
    let value = Uuid::new_v4().simple().to_string();
    let secure = if over_tls(headers) { "; Secure" } else { "" };
    let cookie = format!("{}={value}; Path=/; SameSite=Strict; HttpOnly{secure}", cookie_name(headers));
    Token { value, set_cookie: cookie.parse().ok() }
}

/// Rejects a form that was not sent from one of our pages, or from a page of another session. The error is a sentence for
/// the user.
pub fn check(headers: &HeaderMap, public_url: Option<&str>, in_form: &str) -> Result<(), &'static str> {
    // Stricter than the check for other routes: a form must come from one of our pages.
    if sender(headers, public_url) != Sender::Own {
        return Err(FOREIGN);
    }
    match session(headers) {
        Some(session) if session.is_form_token(in_form) => Ok(()),
        Some(_) => Err(OLD),
        None => check_login(headers, public_url, in_form),
    }
}

/// The same for the login form.
pub fn check_login(headers: &HeaderMap, public_url: Option<&str>, in_form: &str) -> Result<(), &'static str> {
    if sender(headers, public_url) != Sender::Own {
        return Err(FOREIGN);
    }
    match cookie(headers) {
        // The sender knows both values, so a timing attack reveals nothing.
        Some(in_cookie) if in_cookie == in_form => Ok(()),
        Some(_) => Err(OLD),
        None => Err("The form was sent without its cookie. Nothing was changed. Allow cookies and send it again."),
    }
}

/// The session in the cookie. It may be invalid.
fn session(headers: &HeaderMap) -> Option<ApiToken> {
    session_cookie(headers).and_then(ApiToken::parse)
}

fn cookie_name(headers: &HeaderMap) -> &'static str {
    if over_tls(headers) { HOST_COOKIE } else { PLAIN_COOKIE }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    cookies(headers, cookie_name(headers)).find(|value| is_token(value))
}

fn is_token(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use shared::domain::{Kind, TenantId, TokenId};

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

    #[test]
    fn the_form_of_a_session_is_not_accepted_with_another_one() {
        let session = |id: u128| {
            let (id, tenant) = (TokenId(Uuid::from_u128(id)), TenantId("acme".into()));
            ApiToken::generate(Kind::Person, id, tenant).unwrap()
        };
        let (ann, ben) = (session(1), session(2));
        let of = |session: &ApiToken| {
            let cookies = format!("{PLAIN_COOKIE}={TOKEN}; nofx-session={}", session.expose());
            headers(&[("sec-fetch-site", "same-origin"), ("cookie", &cookies)])
        };
        let form = token(&of(&ann));
        assert!(form.set_cookie.is_none() && form.value == ann.form_token());
        assert_eq!(check(&of(&ann), None, &form.value), Ok(()));
        assert!(check(&of(&ben), None, &form.value).is_err());
        // The token of before the login is in the cookie still.
        assert!(check(&of(&ann), None, TOKEN).is_err());
        let mut foreign = of(&ann);
        foreign.insert("sec-fetch-site", "cross-site".parse().unwrap());
        assert!(check(&foreign, None, &form.value).is_err());
    }
}
