//! Proofs of runs: one JSON document with everything that a run left, and a signed statement over it, the seal.
//!
//! `{"content": {..}, "schema": "nofx.proof.v1", "seal": <DSSE envelope>}`, as canonical JSON (RFC 8785). The content has
//! the sections of [`SECTIONS`]. The seal names the sha256 of each section's canonical JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::digest::{canonical_sha256, sha256_hex};

/// The value of `schema`. A later version gets another name.
pub const SCHEMA: &str = "nofx.proof.v1";
/// The media type of a proof.
pub const MEDIA_TYPE: &str = "application/json";
/// The type of the predicate of a seal.
pub const SEAL_TYPE: &str = "https://nofx.dev/attestation/seal/v1";
/// The sections of the content, sorted.
pub const SECTIONS: [&str; 11] = [
    "artifacts",
    "attempts",
    "decisions",
    "documents",
    "edges",
    "events",
    "gates",
    "plan",
    "provenance",
    "run",
    "steps",
];
/// A larger file is no proof.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Hex digits of a mark.
const MARK: usize = 8;

/// What a seal says about a section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionDigest {
    /// Items of a list, or members of an object.
    pub count: u64,
    /// sha256 of the section's canonical JSON.
    pub sha256: String,
    /// The first 8 hex digits of the sha256 of each item or member, in their order. They only help to say which one was
    /// changed.
    pub marks: String,
}

/// The predicate of a seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealPredicate {
    pub run: String,
    pub tenant: String,
    pub generation: u64,
    pub status: String,
    pub plan_digest: String,
    /// The number of events. They are numbered from 1, without gaps.
    pub events: u64,
    pub sections: BTreeMap<String, SectionDigest>,
    /// RFC 3339.
    pub sealed_at: String,
}

impl SectionDigest {
    /// Of a section.
    pub fn of(section: &Value) -> Result<Self, serde_json::Error> {
        let parts: Vec<&Value> = match section {
            Value::Array(items) => items.iter().collect(),
            Value::Object(members) => members.values().collect(),
            _ => Vec::new(),
        };
        let mut marks = String::with_capacity(parts.len() * MARK);
        for part in &parts {
            marks.push_str(&canonical_sha256(part)?[..MARK]);
        }
        Ok(Self { count: parts.len() as u64, sha256: canonical_sha256(section)?, marks })
    }

    /// The first item or member that differs from the one that was sealed: `[3]` or `.name`. Empty if the marks do not tell.
    pub fn difference(&self, found: &Self, section: &Value) -> String {
        let pairs = self.marks.as_bytes().chunks(MARK).zip(found.marks.as_bytes().chunks(MARK));
        let at = pairs.take_while(|(sealed, found)| sealed == found).count();
        match section {
            Value::Array(items) if at < items.len() => format!("[{at}]"),
            Value::Object(members) => members.keys().nth(at).map(|key| format!(".{key}")).unwrap_or_default(),
            _ => String::new(),
        }
    }
}

/// The statement that a seal signs. `content` must have all sections.
pub fn seal_statement(content: &Value, sealed_at: &str) -> Result<Value, serde_json::Error> {
    let mut sections = BTreeMap::new();
    for name in SECTIONS {
        sections.insert(name.to_owned(), SectionDigest::of(&content[name])?);
    }
    let run = &content["run"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let predicate = SealPredicate {
        run: text(&run["id"]),
        tenant: text(&run["tenant"]),
        generation: run["generation"].as_u64().unwrap_or_default(),
        status: text(&run["status"]),
        plan_digest: text(&run["plan_digest"]),
        events: run["events"].as_u64().unwrap_or_default(),
        sections,
        sealed_at: sealed_at.to_owned(),
    };
    let digests: BTreeMap<&String, &String> =
        predicate.sections.iter().map(|(name, section)| (name, &section.sha256)).collect();
    let content_sha256 = canonical_sha256(&digests)?;
    Ok(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            { "name": "sections", "digest": { "sha256": content_sha256 } },
            { "name": "plan", "digest": { "sha256": predicate.plan_digest } },
            { "name": "events", "digest": { "sha256": predicate.sections["events"].sha256 } },
        ],
        "predicateType": SEAL_TYPE,
        "predicate": predicate,
    }))
}

/// The file: canonical JSON of the content and its seal.
pub fn file(content: &Value, seal: &Value) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct File<'a> {
        content: &'a Value,
        schema: &'static str,
        seal: &'a Value,
    }
    serde_json_canonicalizer::to_vec(&File { content, schema: SCHEMA, seal })
}

/// Whether every section of a content has the digest that a seal names.
pub fn is_sealed(content: &Value, seal: &SealPredicate) -> bool {
    seal.sections.keys().eq(SECTIONS.iter())
        && seal
            .sections
            .iter()
            .all(|(name, sealed)| canonical_sha256(&content[name]).is_ok_and(|sha256| sha256 == sealed.sha256))
}

/// Why a file is not a proof, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Such as `content.events[3].payload`. Empty for the whole file.
    pub path: String,
    pub message: String,
}

impl Fault {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// Reads a file that is canonical JSON, byte for byte. Another spelling of the same values is refused.
pub fn read(bytes: &[u8]) -> Result<Value, Fault> {
    if bytes.len() > MAX_BYTES {
        return Err(Fault::new("", format!("the file has more than {MAX_BYTES} bytes")));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        let at = offset(bytes, error.line(), error.column());
        Fault::new(path_at(bytes, at), format!("byte {at} makes it no JSON"))
    })?;
    let canonical = serde_json_canonicalizer::to_vec(&value).map_err(|error| Fault::new("", error.to_string()))?;
    if canonical != bytes {
        let at = canonical.iter().zip(bytes).take_while(|(one, other)| one == other).count();
        let why = if bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
            ", which has no white space: was the file formatted?"
        } else {
            ""
        };
        return Err(Fault::new(path_at(bytes, at), format!("byte {at} is not as canonical JSON has it{why}")));
    }
    Ok(value)
}

/// The offset of a place that the JSON reader names: lines and columns count from 1, bytes in columns.
fn offset(bytes: &[u8], line: usize, column: usize) -> usize {
    let before: usize =
        bytes.split(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(|line| line.len() + 1).sum();
    (before + column.saturating_sub(1)).min(bytes.len())
}

/// Where in a document a byte is, as a path. Also of a document that is broken there.
pub fn path_at(bytes: &[u8], offset: usize) -> String {
    enum Frame {
        Object(String),
        List(usize),
    }
    let mut frames: Vec<Frame> = Vec::new();
    // Whether the next string is a key.
    let mut is_key = false;
    let mut at = 0;
    while at < offset.min(bytes.len()) {
        match bytes[at] {
            b'"' => {
                let start = at + 1;
                at = start;
                while at < offset.min(bytes.len()) && bytes[at] != b'"' {
                    at += 1 + usize::from(bytes[at] == b'\\');
                }
                let end = at.min(bytes.len());
                if let (true, Some(Frame::Object(key))) = (is_key, frames.last_mut()) {
                    *key = String::from_utf8_lossy(bytes.get(start..end).unwrap_or_default()).into_owned();
                }
            }
            b'{' => {
                frames.push(Frame::Object(String::new()));
                is_key = true;
            }
            b'[' => {
                frames.push(Frame::List(0));
                is_key = false;
            }
            b'}' | b']' => {
                frames.pop();
                is_key = false;
            }
            b':' => is_key = false,
            b',' => match frames.last_mut() {
                Some(Frame::List(index)) => *index += 1,
                Some(Frame::Object(_)) => is_key = true,
                None => {}
            },
            _ => {}
        }
        at += 1;
    }
    let mut path = String::new();
    for frame in &frames {
        match frame {
            Frame::Object(key) if path.is_empty() || key.is_empty() => path.push_str(key),
            Frame::Object(key) => {
                path.push('.');
                path.push_str(key);
            }
            // Writing to a String cannot fail.
            Frame::List(index) => {
                let _ = write!(path, "[{index}]");
            }
        }
    }
    path
}

/// sha256 of an envelope as canonical JSON, by which other documents name it.
pub fn envelope_sha256(envelope: &Value) -> String {
    serde_json_canonicalizer::to_vec(envelope).map(|bytes| sha256_hex(&bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Value {
        let mut content = json!({});
        for name in SECTIONS {
            content[name] = json!([{ "a": 1 }, { "b": [1, "x"] }]);
        }
        content["run"] = json!({ "id": "r", "tenant": "t", "generation": 2, "status": "succeeded", "plan_digest": "d", "events": 2 });
        content
    }

    #[test]
    fn a_statement_has_a_digest_of_each_section() {
        let statement = seal_statement(&content(), "2026-11-30T00:00:00Z").unwrap();
        let predicate: SealPredicate = serde_json::from_value(statement["predicate"].clone()).unwrap();
        assert_eq!(predicate.sections.keys().collect::<Vec<_>>(), SECTIONS);
        assert_eq!((predicate.generation, predicate.events), (2, 2));
        let events = &predicate.sections["events"];
        assert_eq!(
            (events.count, events.sha256.as_str()),
            (2, canonical_sha256(&content()["events"]).unwrap().as_str())
        );
        assert!(is_sealed(&content(), &predicate));
        let mut changed = content();
        changed["events"][1]["b"] = json!(2);
        assert!(!is_sealed(&changed, &predicate));
        let found = SectionDigest::of(&changed["events"]).unwrap();
        assert_eq!(events.difference(&found, &changed["events"]), "[1]");
        changed["run"]["status"] = json!("failed");
        let found = SectionDigest::of(&changed["run"]).unwrap();
        assert_eq!(predicate.sections["run"].difference(&found, &changed["run"]), ".status");
    }

    #[test]
    fn another_spelling_is_refused_and_its_place_is_named() {
        let bytes = file(&content(), &json!({ "sig": "x" })).unwrap();
        assert_eq!(read(&bytes).unwrap()["schema"], SCHEMA);
        let text = String::from_utf8(bytes).unwrap();
        for (from, to, path) in [
            ("{\"a\":1}", "{\"a\": 1}", "content.artifacts[0].a"),
            ("{\"a\":1}", "{\"a\":1.0}", "content.artifacts[0].a"),
            ("\"x\"", "\"\\u0078\"", "content.artifacts[1].b[1]"),
            ("\"sig\":\"x\"", "\"sig\":\"x", "seal.sig"),
            ("{\"a\":1}", "{\"a\":1,\"a\":1}", "content.artifacts[0].a"),
        ] {
            let fault = read(text.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert_eq!(fault.path, path, "{from} as {to}: {fault:?}");
        }
        let formatted = read(format!("{text}\n").as_bytes()).unwrap_err();
        assert!(formatted.message.contains("was the file formatted?"), "{formatted:?}");
        assert!(read(b"").is_err());
    }
}
