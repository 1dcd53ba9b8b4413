//! Reads the catalogue of events, `docs/events.md`, and checks events against it.

use std::collections::BTreeMap;

use serde_json::Value;

const PAGE: &str = include_str!("../../docs/events.md");

/// A field of a payload.
#[derive(Debug, PartialEq, Eq)]
struct Field {
    /// The allowed JSON types, as `jsonb_typeof` of Postgres names them.
    types: Vec<String>,
    optional: bool,
}

/// The event types on the page.
#[derive(Debug)]
pub struct Catalogue(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    writers: Vec<String>,
    fields: BTreeMap<String, Field>,
}

/// The keys of a payload, each with its JSON type.
pub type Shape = BTreeMap<String, String>;

impl Catalogue {
    /// Reads the tables with the columns `type | it happened | written by | payload`.
    pub fn read() -> Self {
        let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
        let entries = rows.map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [kind, _, writers, payload] = cells[..] else { panic!("a row without four cells: {row}") };
            let writers = writers.split(", ").map(|writer| code(writer).to_owned()).collect();
            (code(kind).to_owned(), Entry { writers, fields: fields(payload) })
        });
        let mut found = BTreeMap::new();
        for (kind, entry) in entries {
            assert!(found.insert(kind.clone(), entry).is_none(), "{kind} is twice on the page");
        }
        Self(found)
    }

    /// The names of the event types.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The names of the SQL functions that write events.
    pub fn writers(&self) -> impl Iterator<Item = &str> {
        self.0.values().flat_map(|entry| entry.writers.iter().map(String::as_str))
    }

    /// The differences between an event and the page, one sentence for each.
    pub fn problems(&self, kind: &str, payload: &Shape) -> Vec<String> {
        let Some(Entry { fields, .. }) = self.0.get(kind) else {
            return vec![format!("{kind} is not in docs/events.md")];
        };
        // The handler's payload was too large to store.
        if payload.keys().eq(["omitted"]) {
            return Vec::new();
        }
        let missing = fields
            .iter()
            .filter(|(name, field)| !field.optional && !payload.contains_key(*name))
            .map(|(name, _)| format!("{kind} lacks {name}, which docs/events.md lists"));
        let wrong = payload.iter().filter_map(|(name, found)| match fields.get(name) {
            None => Some(format!("{kind} has {name}, which docs/events.md does not list")),
            Some(field) if field.types.contains(found) => None,
            Some(field) => Some(format!("{kind} has {name} as {found}; docs/events.md says {:?}", field.types)),
        });
        missing.chain(wrong).collect()
    }
}

/// The shape of a payload.
pub fn shape(payload: &Value) -> Shape {
    let fields = payload.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), type_of(value).to_owned())).collect()
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Parses fields such as `` `goal` string, `failure?` object or null ``. `none` means no field.
fn fields(cell: &str) -> BTreeMap<String, Field> {
    const TYPES: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];
    let listed = cell.split(", ").filter(|field| *field != "none");
    listed
        .map(|field| {
            let (name, types) = field.split_once(' ').unwrap_or_else(|| panic!("a field without a type: {field}"));
            let types: Vec<String> = types.split(" or ").map(str::to_owned).collect();
            assert!(types.iter().all(|one| TYPES.contains(&one.as_str())), "no JSON type: {field}");
            let name = code(name);
            let optional = name.ends_with('?');
            (name.trim_end_matches('?').to_owned(), Field { types, optional })
        })
        .collect()
}

fn code(cell: &str) -> &str {
    cell.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).unwrap_or_else(|| panic!("not in backticks: {cell}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_page_is_parsed_and_differences_are_found() {
        let catalogue = Catalogue::read();
        assert!(catalogue.kinds().count() > 30);
        let problems = |payload: Value| catalogue.problems("run.retried", &shape(&payload)).len();
        assert_eq!(problems(json!({ "actor": "ann", "generation": 2 })), 0);
        assert_eq!(problems(json!({ "actor": "ann" })), 1, "a field is missing");
        assert_eq!(problems(json!({ "actor": "ann", "generation": "2" })), 1, "a field has another type");
        assert_eq!(problems(json!({ "actor": "ann", "generation": 2, "more": 1 })), 1, "a field is not listed");
        let usage = catalogue.0["codegen.usage"].fields["input_tokens"].types.clone();
        assert_eq!(usage, ["number", "null"]);
        assert!(catalogue.0["step.failed"].fields["attempt"].optional);
        assert_eq!(catalogue.problems("run.unknown", &shape(&json!({}))).len(), 1);
    }
}
