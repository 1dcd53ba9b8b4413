//! Conditional requests (RFC 9110, section 13.1.2). Answers that clients poll have an `ETag`. A client that sends it in
//! `If-None-Match` gets 304 without a body until the answer changes. One that sends it in `If-Match` replaces the resource
//! only if it has not changed.

use std::convert::Infallible;
use std::future::Future;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::base_path::BasePath;
use crate::domain::digest::sha256_hex;
use crate::error::Error;

/// Digest of the schemas of all answers. Every tag contains it, so a release that changes a schema changes all tags. `make
/// openapi` writes it.
const SCHEMAS_DIGEST: &str = include_str!("../view/digest.txt").trim_ascii();
/// Length of a tag in hex digits.
const TAG_DIGITS: usize = 32;

/// The condition of a request: which answers the client already has.
#[derive(Debug, Clone)]
pub struct Condition {
    /// Path and query of the request, with the base path that links start with. Each page has its own tags.
    target: String,
    if_none_match: Tags,
}

/// The condition of a request that replaces the resource at its address.
#[derive(Debug, Clone)]
pub struct Precondition {
    target: String,
    if_match: Option<Tags>,
}

/// The value of `If-None-Match` or `If-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    /// `*`, which matches any answer.
    Any,
    /// Answers with these tags, without their quotes and `W/`.
    Listed(Vec<Vec<u8>>),
}

impl Condition {
    /// The answer with its tag, or 304 if the client has it. A 304 with tags does not compute the answer. `version` must
    /// change whenever the answer changes. Read it before the answer, so that an old answer never gets a new tag.
    pub async fn answer(
        &self,
        version: &str,
        answer: impl Future<Output = Result<Response, Error>>,
    ) -> Result<Response, Error> {
        let tag = tag_of(&self.target, version);
        let mut response = match &self.if_none_match {
            // `*` matches every answer except an error.
            Tags::Any => answer.await.map(|_| not_modified())?,
            tags if tags.contain(&tag) => not_modified(),
            Tags::Listed(_) => answer.await?,
        };
        // Weak, because the answer may be newer than its tag and the gateway may compress it.
        if let Ok(tag) = HeaderValue::try_from(format!("W/\"{tag}\"")) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        // The gateway may compress the answer. A 304 needs the same header (section 15.4.5).
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        Ok(response)
    }
}

impl Precondition {
    /// Whether the client has sent one.
    pub fn is_given(&self) -> bool {
        self.if_match.is_some()
    }

    /// Whether the client has the answer with this version, or does not care. Our tags are weak because a gateway may
    /// compress the answer, but each names one version exactly. So they are accepted here, which a server may decide
    /// (section 13.1.1 asks for strong ones).
    pub fn holds_for(&self, version: &str) -> bool {
        self.if_match.as_ref().is_none_or(|tags| tags.contain(&tag_of(&self.target, version)))
    }
}

/// The tag of the answer at this address.
fn tag_of(target: &str, version: &str) -> String {
    let mut digest = sha256_hex(format!("{SCHEMAS_DIGEST}\n{version}\n{target}").as_bytes());
    digest.truncate(TAG_DIGITS);
    digest
}

fn not_modified() -> Response {
    StatusCode::NOT_MODIFIED.into_response()
}

impl Tags {
    fn contain(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => tags.iter().any(|other| other == tag.as_bytes()),
        }
    }

    /// Several lines of the header form one list. A malformed list counts as empty.
    fn read<'a>(lines: impl Iterator<Item = &'a HeaderValue>) -> Self {
        let list = lines.map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b',');
        if list.trim_ascii() == b"*" {
            return Self::Any;
        }
        Self::Listed(tags(&list).unwrap_or_default())
    }
}

/// The tags `a` and `b` of `"a", W/"b"`. The comparison ignores `W/`. None if the list is malformed.
fn tags(list: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut tags, mut rest) = (Vec::new(), list.trim_ascii_start());
    while !rest.is_empty() {
        // A list may have empty elements.
        if let Some(next) = rest.strip_prefix(b",") {
            rest = next.trim_ascii_start();
            continue;
        }
        let quoted = rest.strip_prefix(b"W/").unwrap_or(rest).strip_prefix(b"\"")?;
        let end = quoted.iter().position(|byte| *byte == b'"')?;
        let (tag, after) = quoted.split_at(end);
        if tag.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
            return None;
        }
        tags.push(tag.to_vec());
        rest = after[1..].trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
    Some(tags)
}

impl<S: Send + Sync> FromRequestParts<S> for Condition {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let if_none_match = Tags::read(parts.headers.get_all(header::IF_NONE_MATCH).iter());
        Ok(Self { target: target_of(parts), if_none_match })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Precondition {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let is_given = parts.headers.contains_key(header::IF_MATCH);
        let if_match = is_given.then(|| Tags::read(parts.headers.get_all(header::IF_MATCH).iter()));
        Ok(Self { target: target_of(parts), if_match })
    }
}

/// Path and query of a request, with the base path that links start with.
fn target_of(parts: &Parts) -> String {
    let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    parts.extensions.get::<BasePath>().cloned().unwrap_or_default().to(&target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Tags {
        let lines: Vec<_> = lines.iter().map(|line| HeaderValue::from_bytes(line.as_bytes()).unwrap()).collect();
        Tags::read(lines.iter())
    }

    #[test]
    fn the_header_is_a_star_or_a_list_of_weak_or_strong_tags() {
        let tags = |tags: &[&str]| Tags::Listed(tags.iter().map(|tag| tag.as_bytes().to_vec()).collect());
        assert_eq!(read(&[" * "]), Tags::Any);
        assert_eq!(read(&["\"a\""]), tags(&["a"]));
        assert_eq!(read(&["W/\"a,b\" ,, \"c\"\t,"]), tags(&["a,b", "c"]));
        assert_eq!(read(&["\"a\"", "W/\"\", \"ü\""]), tags(&["a", "", "ü"]));
        for malformed in
            ["", "a", "\"a", "\"a\" \"b\"", "\"a b\"", "w/\"a\"", "W/a", "*, \"a\"", "\"a\", *", "\"a\"b", "W/ \"a\""]
        {
            assert_eq!(read(&[malformed]), tags(&[]), "{malformed}");
        }
        assert_eq!(read(&[]), tags(&[]));
    }

    #[tokio::test]
    async fn a_matching_tag_gets_304_without_computing_the_answer() {
        let condition =
            |target: &str, tags: &[&str]| Condition { target: target.to_owned(), if_none_match: read(tags) };
        let full = async || Ok("body".into_response());
        let tag_of = async |target: &str, version: &str| {
            let answer = condition(target, &[]).answer(version, full()).await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.headers()[header::ETAG].to_str().unwrap().to_owned()
        };
        let tag = tag_of("/runs/1?limit=1", "1").await;
        assert_ne!(tag, tag_of("/runs/1?limit=2", "1").await);
        assert_ne!(tag, tag_of("/runs/1?limit=1", "2").await);
        let strong = tag.trim_start_matches("W/");
        for sent in [tag.as_str(), strong, &format!("\"x\", {tag}")] {
            let never = async { panic!("computed") };
            let answer = condition("/runs/1?limit=1", &[sent]).answer("1", never).await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.headers()[header::ETAG].as_bytes()), (304, tag.as_bytes()));
        }
        let missing = async { Err(Error::NotFound("it".into())) };
        assert!(condition("/", &["*"]).answer("1", missing).await.is_err());
        assert_eq!(condition("/", &["*"]).answer("1", full()).await.unwrap().status(), 304);
        assert_eq!(condition("/", &["\"x\""]).answer("1", full()).await.unwrap().status(), 200);
    }

    #[test]
    fn a_replacement_holds_for_the_version_that_the_client_has() {
        let precondition =
            |if_match: Option<&[&str]>| Precondition { target: "/policy".to_owned(), if_match: if_match.map(read) };
        let tag = format!("W/\"{}\"", tag_of("/policy", "1"));
        let cases: [(Option<&[&str]>, [bool; 2]); 6] = [
            (None, [true, true]),
            (Some(&["*"]), [true, true]),
            (Some(&[&tag]), [true, false]),
            (Some(&["\"x\"", tag.trim_start_matches("W/")]), [true, false]),
            (Some(&["\"x\""]), [false, false]),
            // A malformed list names nothing, so nothing is replaced.
            (Some(&[tag.trim_matches('"')]), [false, false]),
        ];
        for (sent, expected) in cases {
            let precondition = precondition(sent);
            assert_eq!(precondition.is_given(), sent.is_some());
            assert_eq!(["1", "2"].map(|version| precondition.holds_for(version)), expected, "{sent:?}");
        }
    }
}
