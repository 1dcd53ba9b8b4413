//! Pages of lists: `limit`, `after`, and the `Link` header (RFC 8288) that leads to the next one.

use axum::http::{HeaderName, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use shared::domain::RunId;
use shared::error::Error;

/// What a client asks for.
#[derive(Debug, Default, Deserialize)]
pub struct Query {
    limit: Option<String>,
    after: Option<String>,
}

const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 1_000;

impl Query {
    /// Rows on a page.
    pub fn limit(&self) -> Result<i64, Error> {
        match self.limit.as_deref() {
            None => Ok(DEFAULT_LIMIT),
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                .ok_or_else(|| Error::invalid("limit", format!("must be a whole number from 1 to {MAX_LIMIT}"))),
        }
    }

    /// Sequence number after which a timeline goes on.
    pub fn after_seq(&self) -> Result<i64, Error> {
        match self.after.as_deref() {
            None | Some("") => Ok(0),
            Some(text) => text
                .parse()
                .ok()
                .filter(|seq| *seq >= 0)
                .ok_or_else(|| Error::invalid("after", "must be the seq of an event")),
        }
    }

    /// Position in the list of runs.
    pub fn after_run(&self) -> Result<Option<(String, RunId)>, Error> {
        let Some(text) = self.after.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        run_cursor_read(text)
            .map(Some)
            .ok_or_else(|| Error::invalid("after", "is not a cursor that this list has given out"))
    }
}

/// Cursor of a run: where it stands in the list. Opaque to clients.
pub fn run_cursor(created_at: &str, id: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{created_at}|{id}"))
}

fn run_cursor_read(text: &str) -> Option<(String, RunId)> {
    let decoded = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (created_at, id) = decoded.split_once('|')?;
    // Goes into a cast to timestamptz: only what a timestamp is made of.
    let timestamp = created_at.len() <= 40
        && created_at.starts_with(|c: char| c.is_ascii_digit())
        && created_at.bytes().all(|byte| byte.is_ascii_digit() || b"-:T.+Z".contains(&byte));
    if !timestamp {
        return None;
    }
    Some((created_at.to_owned(), id.parse().ok()?))
}

/// `Link: <?after=..&limit=..>; rel="next"`: relative, so that it holds behind any prefix.
pub fn next_link(after: &str, limit: i64) -> Option<(HeaderName, HeaderValue)> {
    let value = format!("<?after={after}&limit={limit}>; rel=\"next\"");
    HeaderValue::from_str(&value).ok().map(|value| (header::LINK, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_that_was_made_up_is_refused() {
        let id = "0190a0a0-0000-7000-8000-000000000001";
        let good = run_cursor("2026-11-23T01:02:03.456789+00:00", id);
        assert!(run_cursor_read(&good).is_some());
        for bad in ["x", &run_cursor("now", id), &run_cursor("2026-11-23", "x"), &run_cursor("infinity", id)] {
            assert_eq!(run_cursor_read(bad), None, "{bad}");
        }
    }
}
