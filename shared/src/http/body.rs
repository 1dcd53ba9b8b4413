//! Request bodies: one JSON object, read strictly.

use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde_json::{Map, Value};

use crate::domain::bounds::{Shape, json_depth, shortened};
use crate::domain::fields::{self, Fields, Most, Names, Null};
use crate::domain::gate::Decision;
use crate::domain::hidden::{self, Lines};
use crate::domain::json::repeated_key;
use crate::domain::number::inexact_numbers;
use crate::domain::plan::MAX_JSON_DEPTH;
use crate::error::{Error, Problem};

/// Memory that a parsed body may take. There are up to three copies: the body, the plan, and the message to the
/// database.
const MAX_BODY_MEMORY: usize = 32 << 20;
/// Most inexact numbers that are reported.
const MAX_INEXACT: usize = 100;

static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

/// A request's body: a JSON object or nothing. Anything else was refused earlier.
#[derive(Debug, Clone, Default)]
pub struct Body(Arc<Value>);

impl Body {
    pub(super) fn parse(bytes: &Bytes) -> Result<Self, Error> {
        match json_body(bytes)? {
            Value::Null if bytes.is_empty() => Ok(Self::default()),
            object @ Value::Object(_) => Ok(Self(Arc::new(object))),
            _ => Err(not_an_object()),
        }
    }

    /// The object. An error if there is no body.
    pub fn object(&self) -> Result<&Value, Error> {
        if self.0.is_object() { Ok(&self.0) } else { Err(not_an_object()) }
    }

    /// Reads the fields of the object with `read`. `known` lists all fields. Null counts as absent. An error if there
    /// is no body.
    pub fn read<'a, T>(
        &'a self,
        known: &'static [Names],
        read: impl FnOnce(&mut Fields<'a, '_>) -> Option<T>,
    ) -> Result<T, Error> {
        fields::read(self.object()?, "", known, Null::Absent, read).map_err(Error::Invalid)
    }

    /// The actor. A missing body counts as `{}`.
    pub fn only_actor(&self) -> Result<String, Error> {
        self.read_if_any(&[ACTOR], |fields| Some(actor(fields)))
    }

    /// The same as `read`, but a missing body counts as `{}`.
    pub fn read_if_any<'a, T>(
        &'a self,
        known: &'static [Names],
        read: impl FnOnce(&mut Fields<'a, '_>) -> Option<T>,
    ) -> Result<T, Error> {
        let object = if self.0.is_object() { &self.0 } else { &*EMPTY };
        fields::read(object, "", known, Null::Absent, read).map_err(Error::Invalid)
    }

    /// The actor, and the object without the actor's field.
    pub fn without_actor(&self) -> Result<(String, Value), Error> {
        let mut rest = self.object()?.as_object().cloned().unwrap_or_default();
        let asking = ACTOR.iter().filter_map(|name| rest.remove_entry(*name)).collect();
        let actor = fields::read(&Value::Object(asking), "", &[ACTOR], Null::Absent, |fields| Some(actor(fields)));
        Ok((actor.map_err(Error::Invalid)?, Value::Object(rest)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Body {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

fn not_an_object() -> Error {
    Error::invalid("", "the body must be a JSON object")
}

/// The field that names the actor.
pub const ACTOR: Names = &["actor", "approved_by", "approvedBy"];
pub const REASON: Names = &["reason"];
pub const MAX_REASON_CHARS: usize = 2_000;
pub(super) const MAX_ACTOR_CHARS: usize = 200;

/// The actor that the body names, or `anonymous`. The database records it only on a local stack without logins, and
/// otherwise the name of the caller.
pub fn actor(fields: &mut Fields<'_, '_>) -> String {
    if fields.value("actor").is_none() {
        return "anonymous".to_owned();
    }
    fields.read("actor", |value| actor_of(value.as_str().unwrap_or_default())).unwrap_or_default()
}

/// The name of an actor without spaces around it. The error says what a name is.
pub fn actor_of(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() || name.chars().count() > MAX_ACTOR_CHARS {
        return Err(format!("must be a name of 1 to {MAX_ACTOR_CHARS} characters"));
    }
    hidden::check(name, Lines::One).map(|()| name.to_owned())
}

/// The reason of a decision, or for one.
pub fn reason(fields: &mut Fields<'_, '_>) -> Option<String> {
    let text = |value| {
        let text = fields::text(value, Most::Chars(MAX_REASON_CHARS))?;
        fields::readable(text, Lines::Many).map(str::to_owned)
    };
    fields.read("reason", text)
}

/// The reason of this decision. To reject or waive needs one.
pub fn reason_of(fields: &mut Fields<'_, '_>, decision: Decision) -> Option<String> {
    let reason = reason(fields);
    // A text that is not a reason has its own problem.
    let is_read = reason.is_some() || fields.value("reason").is_none();
    if let (true, Err(rule)) = (is_read, decision.check_reason(reason.as_deref())) {
        fields.problem("reason", rule);
    }
    reason
}

/// Parses the body as JSON. An empty body is `null`. Refuses repeated keys in an object, because parsers disagree about
/// which one counts, and nesting that could not be read back inside a larger document.
pub fn json_body(bytes: &Bytes) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let too_deep = || Error::invalid("", format!("the body is nested deeper than {MAX_JSON_DEPTH} levels"));
    // Check before parsing, because a short text can contain very many small objects.
    if let Ok(text) = std::str::from_utf8(bytes) {
        let memory = Shape::of(text).memory;
        if memory > MAX_BODY_MEMORY {
            let message =
                format!("the body takes {memory} bytes of memory once parsed; at most {MAX_BODY_MEMORY} are accepted");
            return Err(Error::invalid("", message));
        }
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        // The parser has a limit of its own, which is higher than MAX_JSON_DEPTH.
        if error.to_string().starts_with("recursion limit exceeded") {
            return too_deep();
        }
        Error::invalid("", format!("the body is not JSON: {error}"))
    })?;
    if json_depth(&value) > MAX_JSON_DEPTH {
        return Err(too_deep());
    }
    // Only the text shows inexact numbers and repeated keys.
    numbers_are_exact(bytes)?;
    match repeated_key(bytes) {
        Ok(None) => Ok(value),
        Ok(Some(path)) => Err(Error::invalid(path, "is repeated in the same object")),
        Err(error) => Err(Error::invalid("", format!("the body is not JSON: {error}"))),
    }
}

/// Refuses numbers that could not be stored exactly.
fn numbers_are_exact(bytes: &Bytes) -> Result<(), Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::invalid("", "the body is not UTF-8"))?;
    let problems: Vec<_> = inexact_numbers(text, MAX_INEXACT)
        .into_iter()
        .map(|number| {
            let written = shortened(&text[number.token], 100);
            Problem::new(number.path, format!("{written} cannot be stored exactly; write it as a string"))
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Result<Body, Error> {
        Body::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_body_is_one_object_or_nothing() {
        assert!(body("").unwrap().object().is_err());
        assert!(body("{}").unwrap().object().is_ok());
        for bad in ["[]", "\"x\"", "1", "null", "{", "{} {}", " ", "{\"a\":1,}", "\u{feff}{}"] {
            assert!(body(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_with_its_path() {
        let error = body(r#"{"a":[{"b":1},{"b":{"c":1,"d":2,"c":{}}}]}"#).unwrap_err();
        assert_eq!(error.to_string(), "a[1].b.c: is repeated in the same object");
        assert!(body(r#"{"a":1,"\u0061":2}"#).is_err(), "an escaped key is the same key");
        let fine = r#"{"a":{"a":[{"a":1.5e300},{"a":-1}]},"b":[null,true,"x",9007199254740992]}"#;
        assert!(body(fine).is_ok());
    }

    #[test]
    fn a_short_body_of_many_parts_is_refused_before_it_is_built() {
        let crumbs = format!("{{\"a\":[{}]}}", vec!["{\"\":0}"; 100_000].join(","));
        assert!(body(&crumbs).unwrap_err().to_string().contains("bytes of memory"));
        assert!(body(&format!("{{\"a\":[{}]}}", vec!["0"; 400_000].join(","))).is_ok());
    }

    #[test]
    fn a_number_that_would_be_stored_as_another_is_refused_with_its_path() {
        for number in ["12345678901234567890123", "9007199254740993"] {
            let error = body(&format!("{{\"a\":[{{\"b\":1}},{number}]}}")).unwrap_err();
            assert_eq!(error.to_string(), format!("a[1]: {number} cannot be stored exactly; write it as a string"));
        }
    }

    #[test]
    fn nesting_is_bounded_below_what_the_parser_reads() {
        let nested = |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(body(&nested(MAX_JSON_DEPTH - 2)).is_ok());
        for levels in [MAX_JSON_DEPTH - 1, 120, 126, 10_000] {
            let error = body(&nested(levels)).unwrap_err().to_string();
            assert_eq!(error, "the body is nested deeper than 64 levels", "{levels}");
        }
    }

    #[test]
    fn whoever_asks_has_a_readable_name() {
        let read = |text: &str| body(text).unwrap().only_actor().map_err(|error| error.to_string());
        assert_eq!(read(""), Ok("anonymous".into()));
        assert_eq!(read(r#"{"approvedBy":" ann "}"#), Ok("ann".into()));
        assert_eq!(read(r#"{"acter":"ann"}"#).unwrap_err(), "acter: is not a known field; the fields are actor");
        assert!(read(r#"{"actor":"ann","approved_by":"bob"}"#).is_err());
        for name in ["\"\"", "\"  \"", "7", "\"a\\u0000b\"", "\"a\\u001b[31mb\""] {
            assert!(read(&format!("{{\"actor\":{name}}}")).is_err(), "{name}");
        }
        let (actor, rest) = body(r#"{"actor":"ann","columns":["a"]}"#).unwrap().without_actor().unwrap();
        assert_eq!((actor.as_str(), rest), ("ann", serde_json::json!({"columns": ["a"]})));
    }
}
