//! Query strings and forms: pairs that the route declares, each at most once, in valid UTF-8.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;
use serde_json::Value;

use super::problem::shown;
use crate::domain::fields::{self, Fields, Names, Null};
use crate::error::{Error, Problem};

/// Rows on a page if the client gives no limit.
pub const DEFAULT_LIMIT: i64 = 100;
pub(super) const MAX_LIMIT: i64 = 1_000;
/// Maximum number of problems that are reported for one query string or form.
const MAX_PROBLEMS: usize = 1_000;

/// The pairs of a request's query string. Unknown ones were refused earlier.
#[derive(Debug, Clone, Default)]
pub struct Query(Arc<BTreeMap<String, String>>);

/// The pairs of a posted form. Unknown ones were refused earlier.
#[derive(Debug, Clone, Default)]
pub struct Form(Arc<Value>);

impl Query {
    pub(super) fn read(text: &str, known: &[&str]) -> Result<Self, Error> {
        pairs(text, known, "parameter").map(|pairs| Self(Arc::new(pairs)))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// `limit`: rows on a page.
    pub fn limit(&self) -> Result<i64, Error> {
        match self.get("limit") {
            None => Ok(DEFAULT_LIMIT),
            Some(text) => whole(text)
                .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                .ok_or_else(|| Error::invalid("limit", format!("must be a whole number from 1 to {MAX_LIMIT}"))),
        }
    }

    /// `after`: the cursor of a list, which is the id of the last row that the client has.
    pub fn after<T: FromStr>(&self) -> Result<Option<T>, Error> {
        match self.get("after") {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| not_given_out()),
        }
    }

    /// `after` of a timeline: the `seq` of the last event that the client has.
    pub fn after_seq(&self) -> Result<i64, Error> {
        match self.get("after") {
            None | Some("") => Ok(0),
            Some(text) => whole(text).ok_or_else(|| Error::invalid("after", "must be the seq of an event")),
        }
    }
}

/// The error for a cursor that no page returned.
pub fn not_given_out() -> Error {
    Error::invalid("after", "is not a cursor of this list")
}

impl Form {
    pub(super) fn parse(text: &str, known: &[&str]) -> Result<Self, Error> {
        let filled = pairs(text, known, "field")?.into_iter().filter(|(_, text)| !text.is_empty());
        Ok(Self(Arc::new(filled.map(|(name, text)| (name, Value::from(text))).collect())))
    }

    /// A field's text. Empty if the field is absent.
    pub fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    /// Reads the fields that are not empty with `read`. `known` lists all fields.
    pub fn read<'a, T>(
        &'a self,
        known: &'static [Names],
        read: impl FnOnce(&mut Fields<'a, '_>) -> Option<T>,
    ) -> Result<T, Error> {
        fields::read(&self.0, "", known, Null::Absent, read).map_err(Error::Invalid)
    }
}

/// `Link: <target?after=..&limit=..>; rel="next"` (RFC 8288). The target is relative to the request, so that it works
/// with any path prefix. An empty target is the list itself.
pub fn next_link(target: &str, after: &str, limit: i64) -> Option<(HeaderName, HeaderValue)> {
    let value = format!("<{target}?after={}&limit={limit}>; rel=\"next\"", encoded(after));
    HeaderValue::from_str(&value).ok().map(|value| (header::LINK, value))
}

/// A page of a list. With `next`, adds a `Link` to the page after that row.
pub fn page_of(page: impl Serialize, next: Option<impl Display>, limit: i64) -> Response {
    let link = next.and_then(|next| next_link("", &next.to_string(), limit));
    let mut response = Json(page).into_response();
    response.headers_mut().extend(link);
    response
}

/// Percent-encodes a text for one segment of a path or one value of a query.
pub fn encoded(text: &str) -> String {
    const ESCAPED: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// A number that consists only of digits.
fn whole(text: &str) -> Option<i64> {
    Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok())
}

fn pairs(text: &str, known: &[&str], what: &str) -> Result<BTreeMap<String, String>, Error> {
    let (mut pairs, mut problems) = (BTreeMap::new(), Vec::new());
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(key), Some(value)) = (decoded(key), decoded(value)) else {
            problems.push(Problem::new(shown(key, 100), "is not percent-encoded UTF-8"));
            continue;
        };
        if !known.contains(&key.as_str()) {
            let message = match known {
                [] => format!("is not a known {what}; there are none"),
                known => format!("is not a known {what}; use {}", known.join(", ")),
            };
            problems.push(Problem::new(key, message));
        } else if pairs.insert(key.clone(), value).is_some() {
            problems.push(Problem::new(key, "is given more than once"));
        }
        if problems.len() == MAX_PROBLEMS {
            break;
        }
    }
    if problems.is_empty() { Ok(pairs) } else { Err(Error::Invalid(problems)) }
}

/// `None` for an invalid escape, for bytes that are not UTF-8, and for NUL.
fn decoded(text: &str) -> Option<String> {
    let escapes = text.split('%').skip(1);
    for escape in escapes {
        if !escape.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return None;
        }
    }
    let text = text.replace('+', " ");
    let text = percent_decode_str(&text).decode_utf8().ok()?;
    Some(text.into_owned()).filter(|text| !text.contains('\0'))
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Form {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_known_single_and_readable() {
        let known = ["after", "limit"];
        let good = Query::read("after=a%20b+c&&limit=", &known).unwrap();
        assert_eq!((good.get("after"), good.get("limit")), (Some("a b c"), Some("")));
        for bad in ["x=1", "limit=1&limit=2", "after=%FF", "after=%", "after=%4", "after=%zz", "%00=1", "after=%00"] {
            assert!(Query::read(bad, &known).is_err(), "{bad}");
        }
        assert!(Query::read("a=1", &[]).unwrap_err().to_string().contains("there are none"));
    }

    #[test]
    fn limits_and_cursors_are_plain_numbers_and_ids() {
        let query = |text: &str| Query::read(text, &["after", "limit"]).unwrap();
        for bad in
            ["limit=0", "limit=1001", "limit=-1", "limit=%2B5", "limit=5.0", "limit=", "limit=99999999999999999999"]
        {
            assert!(query(bad).limit().is_err(), "{bad}");
        }
        assert!(query("after=99999999999999999999").after_seq().is_err());
        assert!(query("after=-1").after_seq().is_err());
        assert!(query("after=MjAyNi0xMy0zM3x4").after::<uuid::Uuid>().is_err());
        assert_eq!(encoded("a/b c%ü"), "a%2Fb%20c%25%C3%BC");
    }
}
