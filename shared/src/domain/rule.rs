//! Rules of `db_write`: which table a tenant's plans may write, and how. Read strictly, because a misread rule opens more
//! than its author meant.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::problem::Problem;

/// What plans may do with a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    pub allowed_ops: Vec<Op>,
    /// Columns that may be written; without the list, none.
    pub columns: Vec<String>,
    /// Columns that find rows, all of them together; without the list, none.
    pub key: Vec<String>,
    /// Most rows a statement may touch.
    pub max_rows: usize,
    /// The database role that writes.
    pub role: String,
    /// Triggers and rewrite rules that may run, as `schema.table.name`, each with the sha256 of its definition.
    pub triggers: BTreeMap<String, String>,
    /// Other tables that cascades and triggers may change, as `schema.table`, each with its most rows.
    pub dependants: BTreeMap<String, u64>,
    /// What is no plain table and may be written all the same.
    pub allow: Vec<Allowance>,
}

/// An operation on rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    Insert,
    Update,
    Delete,
}

/// A kind of target that a rule must name to open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowance {
    View,
    ForeignTable,
    Inheritance,
}

/// Most rows of one statement, whatever a rule says.
pub const MAX_ROWS: usize = 1_000;
/// Rows of one statement when a rule names no number.
pub const DEFAULT_MAX_ROWS: usize = 100;
/// The role that writes when a rule names none.
pub const DEFAULT_ROLE: &str = "nofx_writer";
/// Fields of a rule.
pub const FIELDS: [&str; 8] = ["allowed_ops", "columns", "key", "max_rows", "role", "triggers", "dependants", "allow"];
const MAX_DEPENDANT_ROWS: u64 = 999_999;
/// Most entries of each list and map.
const MAX_ENTRIES: usize = 1_000;
/// Longest name that Postgres keeps, in bytes, for each part of a dotted name.
const MAX_NAME_BYTES: usize = 63;

impl Rule {
    /// Reads a rule: an object of [`FIELDS`], of which only `allowed_ops` is required. Every problem is named.
    pub fn parse(object: &Map<String, Value>) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader { object, problems: Vec::new() };
        for key in object.keys().filter(|key| !FIELDS.contains(&key.as_str())) {
            reader.problem(key, format!("is not known; there are {}", FIELDS.join(", ")));
        }
        let allowed_ops: Vec<Op> = reader.words("allowed_ops", "insert, update or delete");
        if allowed_ops.is_empty() && reader.problems.iter().all(|problem| !problem.path.starts_with("allowed_ops")) {
            reader.problem("allowed_ops", "must name at least one of insert, update and delete");
        }
        let rule = Self {
            allowed_ops,
            columns: reader.names("columns"),
            key: reader.names("key"),
            max_rows: reader.max_rows(),
            role: reader.role(),
            triggers: reader.map("triggers", 3, "the sha256 of its definition (64 lower-case hex digits)", |value| {
                let digits =
                    |text: &&str| text.len() == 64 && text.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
                value.as_str().filter(digits).map(str::to_owned)
            }),
            dependants: reader.map("dependants", 2, "a whole number of rows from 0 to 999999", |value| {
                value.as_u64().filter(|rows| *rows <= MAX_DEPENDANT_ROWS)
            }),
            allow: reader.words("allow", "view, foreign_table or inheritance"),
        };
        if reader.problems.is_empty() { Ok(rule) } else { Err(reader.problems) }
    }

    pub fn allows(&self, allowance: Allowance) -> bool {
        self.allow.contains(&allowance)
    }
}

impl Op {
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// Whether this can be the `schema.table` of a rule.
pub fn is_table_name(text: &str) -> bool {
    is_dotted(text, 2)
}

fn is_dotted(text: &str, parts: usize) -> bool {
    let plain = |part: &str| !part.is_empty() && part.len() <= MAX_NAME_BYTES && !part.contains(char::is_control);
    text.split('.').count() == parts && text.split('.').all(plain)
}

struct Reader<'a> {
    object: &'a Map<String, Value>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(path, message));
    }

    fn list(&mut self, key: &str) -> &'a [Value] {
        match self.object.get(key) {
            None => &[],
            Some(Value::Array(items)) if items.len() <= MAX_ENTRIES => items,
            Some(_) => {
                self.problem(key, format!("must be a list of at most {MAX_ENTRIES} entries"));
                &[]
            }
        }
    }

    fn names(&mut self, key: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (at, item) in self.list(key).iter().enumerate() {
            match item.as_str().filter(|name| is_dotted(&name.replace('.', "_"), 1)) {
                Some(name) if names.iter().any(|known| known == name) => {
                    self.problem(&format!("{key}[{at}]"), "stands twice in the list");
                }
                Some(name) => names.push(name.to_owned()),
                None => self.problem(
                    &format!("{key}[{at}]"),
                    format!("must be a column's name of 1 to {MAX_NAME_BYTES} bytes"),
                ),
            }
        }
        names
    }

    fn words<T: for<'de> Deserialize<'de> + PartialEq>(&mut self, key: &str, known: &str) -> Vec<T> {
        let mut words: Vec<T> = Vec::new();
        for (at, item) in self.list(key).iter().enumerate() {
            match T::deserialize(item) {
                Ok(word) if words.contains(&word) => self.problem(&format!("{key}[{at}]"), "stands twice in the list"),
                Ok(word) => words.push(word),
                Err(_) => self.problem(&format!("{key}[{at}]"), format!("must be {known}")),
            }
        }
        words
    }

    fn max_rows(&mut self) -> usize {
        let Some(value) = self.object.get("max_rows") else { return DEFAULT_MAX_ROWS };
        let rows =
            value.as_u64().and_then(|rows| usize::try_from(rows).ok()).filter(|rows| (1..=MAX_ROWS).contains(rows));
        rows.unwrap_or_else(|| {
            self.problem("max_rows", format!("must be a whole number from 1 to {MAX_ROWS}"));
            DEFAULT_MAX_ROWS
        })
    }

    fn role(&mut self) -> String {
        match self.object.get("role") {
            None => DEFAULT_ROLE.to_owned(),
            Some(Value::String(role)) if is_dotted(&role.replace('.', "_"), 1) => role.clone(),
            Some(_) => {
                self.problem("role", format!("must be a role's name of 1 to {MAX_NAME_BYTES} bytes"));
                DEFAULT_ROLE.to_owned()
            }
        }
    }

    fn map<T>(
        &mut self,
        key: &str,
        parts: usize,
        what: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let entries = match self.object.get(key) {
            None => return BTreeMap::new(),
            Some(Value::Object(entries)) if entries.len() <= MAX_ENTRIES => entries,
            Some(_) => {
                self.problem(key, format!("must be an object of at most {MAX_ENTRIES} entries"));
                return BTreeMap::new();
            }
        };
        let shape = if parts == 2 { "schema.table" } else { "schema.table.name" };
        let mut found = BTreeMap::new();
        for (name, value) in entries {
            match read(value) {
                _ if !is_dotted(name, parts) => {
                    self.problem(key, format!("has a name that is not of the form {shape}"));
                }
                Some(value) => {
                    found.insert(name.clone(), value);
                }
                None => self.problem(&format!("{key}.{name}"), format!("must be {what}")),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(rule: &Value) -> Result<Rule, Vec<Problem>> {
        Rule::parse(rule.as_object().unwrap())
    }

    #[test]
    fn a_rule_that_can_be_read_in_two_ways_is_no_rule() {
        let misread = [
            (json!({"max_rows": "1"}), "max_rows"),
            (json!({"max_rows": -1}), "max_rows"),
            (json!({"max_rows": 0}), "max_rows"),
            (json!({"max_rows": 1.0}), "max_rows"),
            (json!({"max_rows": null}), "max_rows"),
            (json!({"max_rows": 1_001}), "max_rows"),
            (json!({"maxrows": 1}), "maxrows"),
            (json!({"columns": "name"}), "columns"),
            (json!({"columns": [1]}), "columns[0]"),
            (json!({"columns": ["a", "a"]}), "columns[1]"),
            (json!({"key": {"id": true}}), "key"),
            (json!({"role": ""}), "role"),
            (json!({"triggers": {"public.t.x": "short"}}), "triggers.public.t.x"),
            (json!({"triggers": {"x": "a".repeat(64)}}), "triggers"),
            (json!({"dependants": {"public.child": -1}}), "dependants.public.child"),
            (json!({"dependants": {"child": 1}}), "dependants"),
            (json!({"allow": ["anything"]}), "allow[0]"),
            (json!({"allowed_ops": ["truncate"]}), "allowed_ops[0]"),
            (json!({"allowed_ops": []}), "allowed_ops"),
        ];
        for (more, path) in misread {
            let mut rule = json!({"allowed_ops": ["insert"]});
            rule.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
            let problems = parse(&rule).unwrap_err();
            assert_eq!(problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), [path], "{more}");
        }
        assert!(parse(&json!({})).is_err());
    }

    #[test]
    fn a_rule_is_written_as_it_is_read() {
        let rule = parse(&json!({"allowed_ops": ["insert"]})).unwrap();
        assert_eq!((rule.max_rows, rule.role.as_str()), (100, "nofx_writer"));
        let written = serde_json::to_value(&rule).unwrap();
        assert_eq!(parse(&written).unwrap(), rule);
    }

    #[test]
    fn a_table_has_a_schema_and_a_name() {
        assert!(is_table_name("public.products"));
        for bad in ["products", "a.b.c", ".b", "a.", "a.b\0", &format!("a.{}", "b".repeat(64))] {
            assert!(!is_table_name(bad), "{bad}");
        }
    }
}
