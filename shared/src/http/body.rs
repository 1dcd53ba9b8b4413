//! Request bodies: one JSON object, read strictly.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::domain::bounds::{Shape, json_depth, shortened};
use crate::domain::number::inexact_numbers;
use crate::domain::place::Place;
use crate::domain::plan::MAX_JSON_DEPTH;
use crate::error::{Error, Problem};

/// Memory that a parsed body may take. There are up to three copies: the body, the plan, and the message to the
/// database.
const MAX_BODY_MEMORY: usize = 32 << 20;
/// Most inexact numbers that are reported.
const MAX_INEXACT: usize = 100;

static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// A request's body: a JSON object or nothing. Everything else was refused before.
#[derive(Debug, Clone, Default)]
pub struct Body(Arc<Value>);

impl Body {
    pub(super) fn read(bytes: &Bytes) -> Result<Self, Error> {
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

    /// The fields of the object, which must exist. `known` lists all fields, each with its other spellings.
    pub fn fields(&self, known: &[Names]) -> Result<Fields<'_>, Error> {
        let object = self.0.as_object().ok_or_else(not_an_object)?;
        Ok(Fields::of(object, known))
    }

    /// The same, but no body counts as `{}`.
    pub fn fields_if_any(&self, known: &[Names]) -> Fields<'_> {
        Fields::of(self.0.as_object().unwrap_or(&EMPTY), known)
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

/// Spellings of a field. The first is its name. The others are those of the first version, which used camel case.
pub type Names = &'static [&'static str];

/// The field that names the actor.
pub const ACTOR: Names = &["actor", "approved_by", "approvedBy"];
pub const REASON: Names = &["reason"];
pub const MAX_REASON_CHARS: usize = 2_000;
const MAX_ACTOR_CHARS: usize = 200;

/// The fields of an object. Reading collects problems, and `finish` returns them.
#[derive(Debug)]
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    problems: Vec<Problem>,
}

impl<'a> Fields<'a> {
    fn of(object: &'a Map<String, Value>, known: &[Names]) -> Self {
        let mut problems = Vec::new();
        let names: Vec<_> = known.iter().filter_map(|names| names.first().copied()).collect();
        let unknown = format!("is not a known field; the fields are {}", names.join(", "));
        for key in object.keys().filter(|key| !known.iter().any(|names| names.contains(&key.as_str()))) {
            problems.push(Problem::new(key, unknown.as_str()));
        }
        for names in known {
            let mut given = names.iter().filter(|name| object.contains_key(**name));
            if let (Some(first), Some(second)) = (given.next(), given.next()) {
                problems.push(Problem::new(*second, format!("is another name of {first}; give only one of them")));
            }
        }
        Self { object, problems }
    }

    pub fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(path, message));
    }

    /// A string of at most `most` characters, without NUL.
    pub fn text(&mut self, names: Names, most: usize) -> Option<String> {
        let (key, value) = self.given(names)?;
        match value.as_str().filter(|text| text.chars().count() <= most && !text.contains('\0')) {
            Some(text) => Some(text.to_owned()),
            None => self.refuse(key, format!("must be a string of at most {most} characters, without NUL")),
        }
    }

    /// A whole number.
    pub fn whole(&mut self, names: Names, least: u64, most: u64) -> Option<u64> {
        let (key, value) = self.given(names)?;
        match value.as_u64().filter(|number| (least..=most).contains(number)) {
            Some(number) => Some(number),
            None => self.refuse(key, format!("must be a whole number from {least} to {most}")),
        }
    }

    /// An id. `what` says of what, such as `a run`.
    pub fn id<T: FromStr>(&mut self, names: Names, what: &str) -> Option<T> {
        let (key, value) = self.given(names)?;
        match value.as_str().and_then(|text| text.parse().ok()) {
            Some(id) => Some(id),
            None => self.refuse(key, format!("must be the id of {what}")),
        }
    }

    /// The actor. Until identity exists it is the given name, else `anonymous`.
    pub fn actor(&mut self) -> String {
        let Some((key, value)) = self.given(ACTOR) else { return "anonymous".to_owned() };
        let name = value.as_str().map(actor_name).unwrap_or_default();
        name.or_else(|| self.refuse(key, ACTOR_RULE)).unwrap_or_default()
    }

    /// The value. If it is missing, that is a problem, unless the field already has one.
    pub fn required<T>(&mut self, names: Names, value: Option<T>) -> Option<T> {
        if value.is_none() && self.given(names).is_none() {
            self.problem(names.first().copied().unwrap_or_default(), "is missing");
        }
        value
    }

    /// A field that is present and not null, with the spelling that the client used.
    pub fn given(&self, names: Names) -> Option<(&'static str, &'a Value)> {
        let given = names.iter().filter_map(|name| Some((*name, self.object.get(*name)?)));
        given.into_iter().find(|(_, value)| !value.is_null())
    }

    /// All problems as an error.
    pub fn finish(self) -> Result<(), Error> {
        if self.problems.is_empty() { Ok(()) } else { Err(Error::Invalid(self.problems)) }
    }

    /// The same, if there is known to be a problem.
    pub fn refusal(self) -> Error {
        Error::Invalid(self.problems)
    }

    fn refuse<T>(&mut self, key: &str, message: impl Into<String>) -> Option<T> {
        self.problem(key, message);
        None
    }
}

pub const ACTOR_RULE: &str = "must be a name of 1 to 200 characters, without control characters";

/// The actor's name, as it is recorded.
pub fn actor_name(text: &str) -> Option<String> {
    let name = text.trim();
    let is_name = !name.is_empty() && name.chars().count() <= MAX_ACTOR_CHARS && !name.contains(char::is_control);
    is_name.then(|| name.to_owned())
}

/// Parses the body as JSON. An empty body is `null`. Refuses repeated keys in an object (parsers disagree about which
/// one counts), and nesting that could not be read back inside a larger document.
pub fn json_body(bytes: &Bytes) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let too_deep = || Error::invalid("", format!("the body is nested deeper than {MAX_JSON_DEPTH} levels"));
    // Check before parsing: a short text can contain very many small objects.
    if let Ok(text) = std::str::from_utf8(bytes) {
        let memory = Shape::of(text).memory;
        if memory > MAX_BODY_MEMORY {
            let message =
                format!("the body takes {memory} bytes of memory once parsed; at most {MAX_BODY_MEMORY} are accepted");
            return Err(Error::invalid("", message));
        }
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        // The parser's limit is higher than ours.
        if error.to_string().starts_with("recursion limit exceeded") {
            return too_deep();
        }
        Error::invalid("", format!("the body is not JSON: {error}"))
    })?;
    if json_depth(&value) > MAX_JSON_DEPTH {
        return Err(too_deep());
    }
    // Inexact numbers and repeated keys are only visible in the text.
    numbers_are_exact(bytes)?;
    let mut twice = None;
    let read = Once { twice: &mut twice, place: Place::Root("") };
    let done = read.deserialize(&mut serde_json::Deserializer::from_slice(bytes));
    match (twice, done) {
        (Some(path), _) => Err(Error::invalid(path, "is repeated in the same object")),
        (None, Ok(())) => Ok(value),
        (None, Err(error)) => Err(Error::invalid("", format!("the body is not JSON: {error}"))),
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

/// Reads a value without keeping it. Stops at a repeated key, and records its place.
struct Once<'a> {
    twice: &'a mut Option<String>,
    place: Place<'a>,
}

impl<'de> DeserializeSeed<'de> for Once<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        while items
            .next_element_seed(Once { twice: &mut *self.twice, place: Place::Index(&self.place, index) })?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(Key(key)) = entries.next_key()? {
            let place = Place::Key(&self.place, &key);
            if seen.contains(&key) {
                *self.twice = Some(place.path());
                return Err(de::Error::custom("a key is repeated"));
            }
            entries.next_value_seed(Once { twice: &mut *self.twice, place })?;
            seen.insert(key);
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Key(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Result<Body, Error> {
        Body::read(&Bytes::copy_from_slice(text.as_bytes()))
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
        let fine = r#"{"a":{"a":[{"a":1.5e300},{"a":-1}]},"b":[null,true,"x",12345678901234567890]}"#;
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
        let error = body(r#"{"a":[{"b":1},12345678901234567890123]}"#).unwrap_err();
        assert_eq!(error.to_string(), "a[1]: 12345678901234567890123 cannot be stored exactly; write it as a string");
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
    fn fields_are_known_spelt_once_and_of_their_type() {
        const KIND: Names = &["gate_type", "gateType"];
        let read = |text: &str| {
            let body = body(text).unwrap();
            let mut fields = body.fields_if_any(&[KIND, ACTOR, REASON]);
            let kind = fields.text(KIND, 9);
            let kind = fields.required(KIND, kind);
            let actor = fields.actor();
            fields.finish().map(|()| (kind.unwrap(), actor)).map_err(|error| error.to_string())
        };
        assert_eq!(read(r#"{"gateType":"x","reason":null}"#), Ok(("x".into(), "anonymous".into())));
        assert_eq!(read(r#"{"gate_type":"x","approvedBy":" ann "}"#), Ok(("x".into(), "ann".into())));
        assert_eq!(
            read(r#"{"gateType":3}"#).unwrap_err(),
            "gateType: must be a string of at most 9 characters, without NUL"
        );
        assert_eq!(read("").unwrap_err(), "gate_type: is missing");
        let typo = read(r#"{"gate_type":"x","acter":"ann"}"#).unwrap_err();
        assert_eq!(typo, "acter: is not a known field; the fields are gate_type, actor, reason");
        assert!(read(r#"{"gate_type":"x","actor":"ann","approved_by":"bob"}"#).is_err());
        for name in ["\"\"", "\"  \"", "7", "\"a\\u0000b\"", "\"a\\u001b[31mb\""] {
            assert!(read(&format!("{{\"gate_type\":\"x\",\"actor\":{name}}}")).is_err(), "{name}");
        }
    }
}
