//! Places in JSON values.

use std::fmt;

use serde_json::Value;

use super::bounds::shortened;

/// Maximum length of a path. Keys may be as long as the document, and thousands of such paths would not fit into
/// memory.
const MAX_PATH_BYTES: usize = 400;

/// A place in a document. It refers to its parent, so that a path is built only for a problem.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// The document and its name, such as `plan`. The name is empty for a request body.
    Root(&'a str),
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl Place<'_> {
    /// `plan.steps[2].inputs.text`, shortened.
    pub fn path(&self) -> String {
        shortened(&self.to_string(), MAX_PATH_BYTES)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(name) => f.write_str(name),
            Self::Key(Self::Root(""), key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Visits every string of a value, with its place.
pub fn strings(value: &Value, name: &str, visit: &mut impl FnMut(&str, &Place<'_>)) {
    walk(value, &Place::Root(name), &mut |value, place| {
        if let Value::String(text) = value {
            visit(text, place);
        }
    });
}

/// The first place whose key or string contains NUL, which Postgres cannot store.
pub fn first_nul(value: &Value, name: &str) -> Option<String> {
    let mut found = None;
    walk(value, &Place::Root(name), &mut |value, place| {
        let in_key = matches!(place, Place::Key(_, key) if key.contains('\0'));
        let in_text = matches!(value, Value::String(text) if text.contains('\0'));
        if found.is_none() && (in_key || in_text) {
            found = Some(place.path());
        }
    });
    found
}

fn walk(value: &Value, place: &Place<'_>, visit: &mut impl FnMut(&Value, &Place<'_>)) {
    visit(value, place);
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &Place::Index(place, index), visit);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                walk(item, &Place::Key(place, key), visit);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nul_is_found_in_keys_and_texts_with_its_path() {
        assert_eq!(first_nul(&json!({"a": ["x", {"b": "y\0"}]}), "inputs").as_deref(), Some("inputs.a[1].b"));
        assert_eq!(first_nul(&json!({"a": {"k\0": 1}}), "inputs").as_deref(), Some("inputs.a.k\0"));
        assert_eq!(first_nul(&json!({"a": [1, null, "x"]}), "inputs"), None);
    }

    #[test]
    fn a_path_of_long_keys_is_short() {
        let deep = json!({"k".repeat(10_000): ["\0"]});
        assert!(first_nul(&deep, "inputs").unwrap().len() < 500);
    }
}
