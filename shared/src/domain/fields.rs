//! Reads every JSON object from outside: plans, request bodies, inputs of steps, rules. It reads field by field,
//! continues after a problem, and collects all problems with their paths.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::hidden::{self, Lines};
use super::place::Place;
use super::problem::Problem;

/// Names of a field. The first is the current one. The others are those of the first version, which used camel case.
pub type Names = &'static [&'static str];

/// What null means in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Null {
    /// The same as no field.
    Absent,
    /// A wrong type.
    Wrong,
}

/// Maximum length of a text.
#[derive(Debug, Clone, Copy)]
pub enum Most {
    Chars(usize),
    Bytes(usize),
}

/// The fields of one object.
pub struct Fields<'a, 'p> {
    object: &'a Map<String, Value>,
    place: Place<'p>,
    known: &'static [Names],
    null: Null,
    problems: &'p mut Vec<Problem>,
}

/// Reads the object `value`. Paths start with `name`, which is empty for a body. `known` lists all fields. Returns the
/// result of `read`, or all problems.
pub fn read<'a, T>(
    value: &'a Value,
    name: &str,
    known: &'static [Names],
    null: Null,
    read: impl FnOnce(&mut Fields<'a, '_>) -> Option<T>,
) -> Result<T, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut fields = Fields::of(value, Place::Root(name), known, null, &mut problems);
    match fields.as_mut().and_then(read) {
        Some(read) if problems.is_empty() => Ok(read),
        _ => Err(problems),
    }
}

impl<'a, 'p> Fields<'a, 'p> {
    fn of(
        value: &'a Value,
        place: Place<'p>,
        known: &'static [Names],
        null: Null,
        problems: &'p mut Vec<Problem>,
    ) -> Option<Self> {
        let Some(object) = value.as_object() else {
            problems.push(Problem::new(place.path(), "must be an object"));
            return None;
        };
        let mut fields = Self { object, place, known, null, problems };
        fields.refuse_unknown();
        Some(fields)
    }

    fn refuse_unknown(&mut self) {
        for key in self.object.keys() {
            if !self.known.iter().any(|names| names.contains(&key.as_str())) {
                let names: Vec<&str> = self.known.iter().filter_map(|names| names.first().copied()).collect();
                self.problem(key, format!("is not a known field; the fields are {}", names.join(", ")));
            }
        }
        for names in self.known {
            let mut given = names.iter().filter(|name| self.object.contains_key(**name));
            if let (Some(first), Some(second)) = (given.next(), given.next()) {
                self.problem(second, format!("is another name of {first}; give only one of them"));
            }
        }
    }

    /// Adds a problem of a field.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(Place::Key(&self.place, key).path(), message));
    }

    /// Adds a problem of an entry in a list.
    pub fn problem_at(&mut self, key: &str, index: usize, message: impl Into<String>) {
        self.problems.push(Problem::new(Place::Index(&Place::Key(&self.place, key), index).path(), message));
    }

    /// Adds a problem of the object itself.
    pub fn problem_here(&mut self, message: impl Into<String>) {
        self.problems.push(Problem::new(self.place.path(), message));
    }

    /// Adds problems that another reader found in the object.
    pub fn problems(&mut self, found: impl IntoIterator<Item = Problem>) {
        self.problems.extend(found);
    }

    /// The path of a field.
    pub fn path(&self, key: &str) -> String {
        Place::Key(&self.place, key).path()
    }

    /// Adds a problem for each of these fields that is missing.
    pub fn require(&mut self, names: &[&str]) {
        for name in names {
            if self.value(name).is_none() {
                self.problem(name, "is missing");
            }
        }
    }

    /// The value of a field, if it is present.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.given(name).map(|(_, value)| value)
    }

    /// The same, with the name that the client used.
    fn given(&self, name: &str) -> Option<(&'static str, &'a Value)> {
        let names = self.known.iter().find(|names| names.first() == Some(&name))?;
        let mut given = names.iter().filter_map(|name| Some((*name, self.object.get(*name)?)));
        given.find(|(_, value)| self.null == Null::Wrong || !value.is_null())
    }

    /// Reads a field with `read`, if it is present. An error of `read` becomes the field's problem.
    pub fn read<T>(&mut self, name: &str, read: impl FnOnce(&'a Value) -> Result<T, String>) -> Option<T> {
        let (key, value) = self.given(name)?;
        read(value).map_err(|message| self.problem(key, message)).ok()
    }

    /// A string without NUL, which Postgres cannot store.
    pub fn text(&mut self, name: &str, most: Most) -> Option<&'a str> {
        self.read(name, |value| text(value, most))
    }

    /// A string that is not blank.
    pub fn filled(&mut self, name: &str, most: Most) -> Option<&'a str> {
        self.read(name, |value| filled(value, most))
    }

    /// A string that people read: it is not blank, and has no hidden characters.
    pub fn readable(&mut self, name: &str, most: Most, lines: Lines) -> Option<&'a str> {
        self.read(name, |value| filled(value, most).and_then(|text| readable(text, lines)))
    }

    /// A whole number.
    pub fn whole<N: TryFrom<u64>>(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<N> {
        self.read(name, |value| {
            let number = whole(value).filter(|number| range.contains(number)).and_then(|number| number.try_into().ok());
            number.ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// An id. `what` names its kind, such as `a run`.
    pub fn id<T: FromStr>(&mut self, name: &str, what: &str) -> Option<T> {
        self.read(name, |value| {
            let id = value.as_str().and_then(|text| text.parse().ok());
            id.ok_or_else(|| format!("must be the id of {what} (a UUID)"))
        })
    }

    /// Reads each entry of a list of at most `most` entries. Entries with a problem are left out.
    pub fn list<T>(&mut self, name: &str, most: usize, mut read: impl FnMut(&'a Value) -> Result<T, String>) -> Vec<T> {
        let entries = self.read(name, |value| {
            let entries = value.as_array().filter(|entries| entries.len() <= most);
            entries.ok_or_else(|| format!("must be a list of at most {most} entries"))
        });
        let mut list = Vec::new();
        for (at, entry) in entries.into_iter().flatten().enumerate() {
            match read(entry) {
                Ok(entry) => list.push(entry),
                Err(message) => self.problem_at(name, at, message),
            }
        }
        list
    }

    /// Reads a field that is an object. `known` lists its fields.
    pub fn object<T>(
        &mut self,
        name: &str,
        known: &'static [Names],
        read: impl FnOnce(&mut Fields<'a, '_>) -> T,
    ) -> Option<T> {
        let (key, value) = self.given(name)?;
        let place = Place::Key(&self.place, key);
        Fields::of(value, place, known, self.null, self.problems).as_mut().map(read)
    }

    /// The same for each entry of a list of objects.
    pub fn objects<T: Default>(
        &mut self,
        name: &str,
        entries: &'a [Value],
        known: &'static [Names],
        mut read: impl FnMut(&mut Fields<'a, '_>) -> T,
    ) -> Vec<T> {
        let list = Place::Key(&self.place, name);
        let mut read_entry = |(at, entry)| {
            let fields = Fields::of(entry, Place::Index(&list, at), known, self.null, &mut *self.problems);
            fields.map(|mut fields| read(&mut fields)).unwrap_or_default()
        };
        entries.iter().enumerate().map(&mut read_entry).collect()
    }
}

/// A string without NUL.
pub fn text(value: &Value, most: Most) -> Result<&str, String> {
    let text = value.as_str().ok_or("must be a string")?;
    let fits = match most {
        Most::Chars(most) => text.chars().count() <= most,
        Most::Bytes(most) => text.len() <= most,
    };
    if !fits {
        Err(format!("must be at most {most}"))
    } else if text.contains('\0') {
        Err("must not contain NUL".to_owned())
    } else {
        Ok(text)
    }
}

/// A string that is not blank.
pub fn filled(value: &Value, most: Most) -> Result<&str, String> {
    let text = text(value, most)?;
    if text.trim().is_empty() { Err("must not be empty".to_owned()) } else { Ok(text) }
}

/// The text, if it has no hidden characters.
pub fn readable(text: &str, lines: Lines) -> Result<&str, String> {
    hidden::check(text, lines).map(|()| text)
}

/// A whole number that is not negative. To JSON 5 and 5.0 are the same number.
pub fn whole(value: &Value) -> Option<u64> {
    // Adding 0 makes 0 of -0.
    value.as_u64().or_else(|| (value.as_f64()? + 0.0).to_string().parse().ok())
}

impl fmt::Display for Most {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chars(most) => write!(f, "{most} characters"),
            Self::Bytes(most) => write!(f, "{most} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KNOWN: &[Names] = &[&["gate_type", "gateType"], &["count"], &["names"], &["inner"]];

    fn wrong(value: &Value, null: Null) -> Vec<String> {
        let read = read(value, "inputs", KNOWN, null, |fields| {
            fields.require(&["gate_type"]);
            let kind = fields.filled("gate_type", Most::Chars(9)).map(str::to_owned);
            fields.whole::<u8>("count", 1..=300);
            fields.list("names", 2, |value| text(value, Most::Bytes(3)));
            fields.object("inner", &[&["id"]], |fields| fields.id::<uuid::Uuid>("id", "a step"));
            kind
        });
        read.err().into_iter().flatten().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn every_mistake_is_reported_with_its_path() {
        let value = json!({"gateType": " ", "count": 0, "names": [1, "abcd"], "inner": {"id": "x"}, "acter": 1});
        assert_eq!(
            wrong(&value, Null::Absent),
            [
                "inputs.acter: is not a known field; the fields are gate_type, count, names, inner",
                "inputs.gateType: must not be empty",
                "inputs.count: must be a whole number from 1 to 300",
                "inputs.names[0]: must be a string",
                "inputs.names[1]: must be at most 3 bytes",
                "inputs.inner.id: must be the id of a step (a UUID)",
            ]
        );
        let more = json!({"gate_type": "x", "gateType": "x", "count": 299, "names": ["a", "b", "c"], "inner": []});
        assert_eq!(
            wrong(&more, Null::Absent),
            [
                "inputs.gateType: is another name of gate_type; give only one of them",
                "inputs.count: must be a whole number from 1 to 300",
                "inputs.names: must be a list of at most 2 entries",
                "inputs.inner: must be an object",
            ]
        );
        assert_eq!(
            wrong(&json!({"gate_type": "0123456789"}), Null::Wrong),
            ["inputs.gate_type: must be at most 9 characters"]
        );
        assert_eq!(wrong(&json!({"gate_type": "a\0"}), Null::Wrong), ["inputs.gate_type: must not contain NUL"]);
        assert_eq!(wrong(&json!([]), Null::Wrong), ["inputs: must be an object"]);
    }

    #[test]
    fn a_whole_number_may_have_a_decimal_point() {
        for (text, expected) in [
            ("5", Some(5)),
            ("5.0", Some(5)),
            ("5e2", Some(500)),
            ("-0.0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("5.5", None),
            ("-5", None),
            ("-5.0", None),
            ("1e300", None),
            ("\"5\"", None),
            ("null", None),
        ] {
            assert_eq!(whole(&serde_json::from_str(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn null_is_absent_or_wrong() {
        let value = json!({"gate_type": "x", "count": null});
        assert!(wrong(&value, Null::Absent).is_empty());
        assert_eq!(wrong(&value, Null::Wrong), ["inputs.count: must be a whole number from 1 to 300"]);
        assert_eq!(wrong(&json!({"gate_type": null}), Null::Absent), ["inputs.gate_type: is missing"]);
        assert_eq!(wrong(&json!({"gate_type": null}), Null::Wrong), ["inputs.gate_type: must be a string"]);
    }
}
