//! Cookies, and the one with the session of a person who uses the console.

use axum::http::{HeaderMap, HeaderValue, header};

use super::header_text;

/// Browsers accept this prefix only over TLS and from the host itself, so no other subdomain can set the cookie.
const HOST_SESSION: &str = "__Host-nofx-session";
const PLAIN_SESSION: &str = "nofx-session";

/// Whether the browser reached the function over TLS.
pub fn over_tls(headers: &HeaderMap) -> bool {
    header_text(headers, "x-forwarded-proto") == Some("https")
}

/// The values of the cookies with this name.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(move |(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// The session in the cookie of a request.
pub fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    cookies(headers, name(headers)).next()
}

/// A cookie with a session, which the browser keeps for `max_age_s`. It is `SameSite=Lax`, so that a link in a mail opens a
/// page. Following a link sends `GET`, which changes nothing.
pub fn new_session_cookie(headers: &HeaderMap, session: &str, max_age_s: u32) -> Option<HeaderValue> {
    let secure = if over_tls(headers) { "; Secure" } else { "" };
    let name = name(headers);
    format!("{name}={session}; Path=/; Max-Age={max_age_s}; SameSite=Lax; HttpOnly{secure}").parse().ok()
}

/// A cookie that removes the session's cookie from the browser.
pub fn no_session_cookie(headers: &HeaderMap) -> Option<HeaderValue> {
    new_session_cookie(headers, "", 0)
}

fn name(headers: &HeaderMap) -> &'static str {
    if over_tls(headers) { HOST_SESSION } else { PLAIN_SESSION }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_tls_only_the_cookie_of_this_host_counts() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", "a=1; nofx-session=plain".parse().unwrap());
        headers.append("cookie", "__Host-nofx-session=own; nofx-session=x".parse().unwrap());
        assert_eq!(session_cookie(&headers), Some("plain"));
        assert_eq!(
            new_session_cookie(&headers, "s", 60).unwrap(),
            "nofx-session=s; Path=/; Max-Age=60; SameSite=Lax; HttpOnly"
        );
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        assert_eq!(session_cookie(&headers), Some("own"));
        assert_eq!(
            no_session_cookie(&headers).unwrap(),
            "__Host-nofx-session=; Path=/; Max-Age=0; SameSite=Lax; HttpOnly; Secure"
        );
    }
}
