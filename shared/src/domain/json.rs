//! Reads JSON texts strictly where two readers of the same text must not disagree.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::bounds::Shape;
use super::place::Place;

/// The largest integer that every reader of JSON stores exactly (RFC 7493, section 2.2).
const MAX_INTEGER: f64 = 9_007_199_254_740_991.0;

/// The path of the first key that is repeated in its object. An escaped key is the same key.
pub fn repeated_key(json: &[u8]) -> Result<Option<String>, serde_json::Error> {
    let mut twice = None;
    let read = Once { twice: &mut twice, place: Place::Root("") };
    let done = read.deserialize(&mut serde_json::Deserializer::from_slice(json));
    match twice {
        Some(path) => Ok(Some(path)),
        None => done.map(|()| None),
    }
}

/// The object that the text is. `Err` says what is wrong: the text is no object in UTF-8, a key is repeated, it is
/// nested deeper than `max_depth` levels, or it has a number whose size other readers do not store exactly.
pub fn strict_object(json: &[u8], max_depth: usize) -> Result<Map<String, Value>, &'static str> {
    let text = std::str::from_utf8(json).map_err(|_| "not UTF-8")?;
    // Checked on the text, so that a deep one is never built.
    if Shape::of(text).depth > max_depth {
        return Err("nested too deeply");
    }
    let Ok(Value::Object(object)) = serde_json::from_str(text) else { return Err("not a JSON object") };
    if !matches!(repeated_key(json), Ok(None)) {
        return Err("a key is repeated");
    }
    if object.values().any(has_large_number) {
        return Err("a number is too large");
    }
    Ok(object)
}

/// Recursive, because the depth is bounded.
fn has_large_number(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_none_or(|number| number.abs() > MAX_INTEGER),
        Value::Array(items) => items.iter().any(has_large_number),
        Value::Object(map) => map.values().any(has_large_number),
        _ => false,
    }
}

/// Reads a value and discards it. Stops at a repeated key, and records its path.
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

    #[test]
    fn a_repeated_key_is_found_wherever_and_however_it_is_written() {
        assert_eq!(repeated_key(br#"{"a":[{"b":1},{"b":2,"\u0062":3}]}"#).unwrap().as_deref(), Some("a[1].b"));
        assert_eq!(repeated_key(br#"{"a":{"a":[1,"a"]},"b":null}"#).unwrap(), None);
        assert!(repeated_key(b"{\"a\":1").is_err());
    }

    #[test]
    fn only_an_object_that_every_reader_reads_alike_is_accepted() {
        let object = strict_object(b" {\"a\": [1.5, {\"b\": -9007199254740991}]}\r\n", 4).unwrap();
        assert_eq!(object["a"][0], 1.5);
        for (text, reason) in [
            (&b"\xff{}"[..], "not UTF-8"),
            (b"[]", "not a JSON object"),
            (b"{} {}", "not a JSON object"),
            (b"\xef\xbb\xbf{}", "not a JSON object"),
            (b"{\"a\":1e999}", "not a JSON object"),
            (b"{\"a\":NaN}", "not a JSON object"),
            (b"{\"a\":\"\\ud800\"}", "not a JSON object"),
            (b"{\"a\":{\"x\":1,\"x\":1}}", "a key is repeated"),
            (b"{\"a\":[[[[1]]]]}", "nested too deeply"),
            (b"{\"a\":[9007199254740993]}", "a number is too large"),
            (b"{\"a\":{\"b\":-1e300}}", "a number is too large"),
        ] {
            assert_eq!(strict_object(text, 4), Err(reason), "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(strict_object("[".repeat(100_000).as_bytes(), 8), Err("nested too deeply"));
    }
}
