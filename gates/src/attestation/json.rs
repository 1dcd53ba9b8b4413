//! Reads JSON in which no object has the same key twice. Readers that disagree about which of the two counts could be
//! shown different documents under one signature.

use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads one object into a struct. `Err` says what is wrong.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match serde_json::from_slice(bytes).map_err(|error| error.to_string())? {
        Unique(Value::Object(object)) => serde_json::from_value(object.into()).map_err(|error| error.to_string()),
        Unique(_) => Err("it is no object".to_owned()),
    }
}

/// Reads a list of objects into structs. For `deserialize_with`: serde alone would also read a struct from an array.
pub fn objects<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let objects = Vec::<Map<String, Value>>::deserialize(deserializer)?;
    let structs = objects.into_iter().map(|object| serde_json::from_value(object.into()).map_err(D::Error::custom));
    structs.collect()
}

struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Unique(value))) = entries.next_entry::<String, Unique>()? {
            if object.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("the key {key:?} is there twice")));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_is_there_twice_is_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"c":[{"b":{"a":1,"a":2}}]}"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(read::<Value>(text.as_bytes()).unwrap_err().contains("twice"), "{text}");
        }
        assert_eq!(
            read::<Value>(br#"{"a":{"a":[1,-1,0.5,"x",null,true]}}"#).unwrap(),
            json!({"a": {"a": [1, -1, 0.5, "x", null, true]}})
        );
    }

    #[test]
    fn only_one_value_is_read() {
        for text in ["", "[]", "1", "{} {}", "{\"a\":1}x", "{\"a\":NaN}", "\u{feff}{}"] {
            assert!(read::<Value>(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(read::<Value>("[".repeat(10_000).as_bytes()).is_err(), "the depth is bounded");
    }
}
