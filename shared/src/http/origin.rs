//! Detects requests that a page of another site made a browser send.
//!
//! Browsers send `Sec-Fetch-Site` and `Origin`, and scripts cannot set them. Other programs send neither.

use axum::http::{HeaderMap, HeaderName, header};

use super::header_text;

/// Where a request comes from, according to its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// One of our own pages.
    Own,
    /// A page of another site, or one whose site is unknown.
    Foreign,
    /// No page: another program, or an address that a user typed.
    NoPage,
}

/// Determines the sender from the headers. `public_url` is the URL that browsers use, if it is not that of the `Host`
/// header.
pub fn sender(headers: &HeaderMap, public_url: Option<&str>) -> Sender {
    match only(headers, &SEC_FETCH_SITE) {
        Once(Some("same-origin")) => return Sender::Own,
        Once(Some("none") | None) => {}
        _ => return Sender::Foreign,
    }
    match only(headers, &header::ORIGIN) {
        Once(None) => Sender::NoPage,
        Once(Some(origin)) if is_ours(origin, headers, public_url) => Sender::Own,
        _ => Sender::Foreign,
    }
}

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

fn is_ours(origin: &str, headers: &HeaderMap, public_url: Option<&str>) -> bool {
    let ours = [header_text(headers, "host"), public_url.and_then(authority)];
    authority(origin).is_some_and(|origin| ours.into_iter().flatten().any(|host| host.eq_ignore_ascii_case(origin)))
}

/// `host:port` of a URL.
fn authority(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    rest.split('/').next().filter(|authority| !authority.is_empty())
}

/// A header that may occur at most once, with a text value.
enum Header<'a> {
    Once(Option<&'a str>),
    Unreadable,
}
use Header::Once;

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Header<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (None, _) => Once(None),
        (Some(Ok(text)), None) => Once(Some(text)),
        _ => Header::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = &'static [(&'static str, &'static [u8])];

    fn headers(pairs: Pairs) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), axum::http::HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_page_of_another_site_is_told_from_ours_and_from_programs() {
        let cases: &[(Pairs, Sender)] = &[
            (&[], Sender::NoPage),
            (&[("sec-fetch-site", b"none")], Sender::NoPage),
            (&[("sec-fetch-site", b"same-origin")], Sender::Own),
            (&[("origin", b"http://NOFX.test:3000")], Sender::Own),
            // Behind a proxy the host differs from the one that the browser uses.
            (&[("origin", b"https://public.test")], Sender::Own),
            (&[("sec-fetch-site", b"cross-site")], Sender::Foreign),
            (&[("sec-fetch-site", b"same-site")], Sender::Foreign),
            (&[("sec-fetch-site", b"cross-site"), ("origin", b"http://nofx.test:3000")], Sender::Foreign),
            (&[("sec-fetch-site", b"none"), ("origin", b"https://evil.test")], Sender::Foreign),
            (&[("origin", b"null")], Sender::Foreign),
            (&[("origin", b"")], Sender::Foreign),
            (&[("origin", b"\xff")], Sender::Foreign),
            (&[("origin", b"http://nofx.test")], Sender::Foreign),
            (&[("origin", b"http://nofx.test:3000.evil.test")], Sender::Foreign),
            (&[("origin", b"http://nofx.test:3000"), ("origin", b"https://evil.test")], Sender::Foreign),
        ];
        for (pairs, expected) in cases {
            let mut headers = headers(pairs);
            headers.insert("host", "nofx.test:3000".parse().unwrap());
            assert_eq!(sender(&headers, Some("https://public.test/prod")), *expected, "{pairs:?}");
        }
    }
}
