//! Rules of `db_write`: which table a tenant's plans may write, and how. They are read strictly, because a misread rule
//! may allow more than its author meant.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fields::{self, Fields, Names, Null};
use super::problem::Problem;

/// What plans may do with a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    pub allowed_ops: Vec<Op>,
    /// Columns that may be written. None by default.
    pub columns: Vec<String>,
    /// Columns that together identify rows. None by default.
    pub key: Vec<String>,
    /// Maximum number of rows of one write.
    pub max_rows: usize,
    /// The database role that writes.
    pub role: String,
    /// Triggers and rewrite rules that may run, as `schema.table.name`, each with the sha256 of its definition.
    pub triggers: BTreeMap<String, String>,
    /// Other tables that cascades and triggers may change, as `schema.table`, each with a maximum number of rows.
    pub dependants: BTreeMap<String, u64>,
    /// Allowed targets other than plain tables.
    pub allow: Vec<Allowance>,
}

/// An operation on rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Op {
    Insert,
    Update,
    Delete,
}

/// A kind of target that only a rule with this entry allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Allowance {
    View,
    ForeignTable,
    Inheritance,
}

/// Upper limit of `max_rows`.
pub const MAX_ROWS: usize = 1_000;
/// Default of `max_rows`.
pub const DEFAULT_MAX_ROWS: usize = 100;
/// Default of `role`.
pub const DEFAULT_ROLE: &str = "nofx_writer";
/// Fields of a rule.
pub const FIELDS: &[Names] =
    &[&["allowed_ops"], &["columns"], &["key"], &["max_rows"], &["role"], &["triggers"], &["dependants"], &["allow"]];
const MAX_DEPENDANT_ROWS: u64 = 999_999;
/// Maximum number of entries of each list and object.
const MAX_ENTRIES: usize = 1_000;
/// Maximum length of a Postgres identifier.
const MAX_NAME_BYTES: usize = 63;

impl Rule {
    /// Reads a rule and reports every problem. Only `allowed_ops` is required.
    pub fn parse(rule: &Value) -> Result<Self, Vec<Problem>> {
        fields::read(rule, "", FIELDS, Null::Wrong, |fields| {
            let allowed_ops = words(fields, "allowed_ops", "insert, update or delete");
            if fields.value("allowed_ops").is_none_or(|ops| *ops == json!([])) {
                fields.problem("allowed_ops", "must name at least one of insert, update and delete");
            }
            Some(Self {
                allowed_ops,
                columns: columns(fields, "columns"),
                key: columns(fields, "key"),
                max_rows: fields.whole("max_rows", 1..=MAX_ROWS as u64).unwrap_or(DEFAULT_MAX_ROWS),
                role: role(fields).unwrap_or_else(|| DEFAULT_ROLE.to_owned()),
                triggers: named(fields, "triggers", 3, |value| {
                    let digest = value.as_str().filter(|text| is_sha256(text)).map(str::to_owned);
                    digest.ok_or("must be the sha256 of its definition (64 lower-case hex digits)")
                }),
                dependants: named(fields, "dependants", 2, |value| {
                    let rows = fields::whole(value).filter(|rows| *rows <= MAX_DEPENDANT_ROWS);
                    rows.ok_or("must be a whole number of rows from 0 to 999999")
                }),
                allow: words(fields, "allow", "view, foreign_table or inheritance"),
            })
        })
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

/// Whether the text has the form `schema.table`.
pub fn is_table_name(text: &str) -> bool {
    is_dotted(text, 2)
}

fn is_dotted(text: &str, parts: usize) -> bool {
    text.split('.').count() == parts && text.split('.').all(is_name)
}

/// Whether the text can be a Postgres identifier.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.contains(char::is_control)
}

/// A list of unique column names.
fn columns(fields: &mut Fields<'_, '_>, name: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    fields.list(name, MAX_ENTRIES, |value| {
        let column = value.as_str().filter(|name| is_name(name));
        let column = column.ok_or_else(|| format!("must be a column's name of 1 to {MAX_NAME_BYTES} bytes"))?;
        if seen.insert(column) { Ok(column.to_owned()) } else { Err("is repeated in the list".to_owned()) }
    })
}

/// A list of unique keywords.
fn words<T: for<'de> Deserialize<'de>>(fields: &mut Fields<'_, '_>, name: &str, known: &str) -> Vec<T> {
    let mut seen = Vec::new();
    fields.list(name, MAX_ENTRIES, |value| {
        let word = T::deserialize(value).map_err(|_| format!("must be {known}"))?;
        if seen.contains(&value) {
            return Err("is repeated in the list".to_owned());
        }
        seen.push(value);
        Ok(word)
    })
}

fn role(fields: &mut Fields<'_, '_>) -> Option<String> {
    fields.read("role", |value| {
        let role = value.as_str().filter(|name| is_name(name)).map(str::to_owned);
        role.ok_or_else(|| format!("must be a role's name of 1 to {MAX_NAME_BYTES} bytes"))
    })
}

/// An object whose keys are dotted names with this number of parts.
fn named<T>(
    fields: &mut Fields<'_, '_>,
    name: &str,
    parts: usize,
    read: impl Fn(&Value) -> Result<T, &'static str>,
) -> BTreeMap<String, T> {
    let entries = fields.read(name, |value| {
        let entries = value.as_object().filter(|entries| entries.len() <= MAX_ENTRIES);
        entries.ok_or_else(|| format!("must be an object of at most {MAX_ENTRIES} entries"))
    });
    let shape = if parts == 2 { "schema.table" } else { "schema.table.name" };
    let mut found = BTreeMap::new();
    for (key, value) in entries.into_iter().flatten() {
        match read(value) {
            _ if !is_dotted(key, parts) => {
                fields.problem(name, format!("has a name that is not of the form {shape}"));
            }
            Ok(value) => {
                found.insert(key.clone(), value);
            }
            Err(message) => fields.problem(&format!("{name}.{key}"), message),
        }
    }
    found
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| b"0123456789abcdef".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ambiguous_rule_is_refused() {
        let misread = [
            (json!({"max_rows": "1"}), "max_rows"),
            (json!({"max_rows": -1}), "max_rows"),
            (json!({"max_rows": 0}), "max_rows"),
            (json!({"max_rows": 1.5}), "max_rows"),
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
            let problems = Rule::parse(&rule).unwrap_err();
            assert_eq!(problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), [path], "{more}");
        }
        assert!(Rule::parse(&json!({})).is_err());
    }

    #[test]
    fn a_written_rule_reads_back_the_same() {
        let rule = Rule::parse(&json!({"allowed_ops": ["insert"]})).unwrap();
        assert_eq!((rule.max_rows, rule.role.as_str()), (100, "nofx_writer"));
        let written = serde_json::to_value(&rule).unwrap();
        assert_eq!(Rule::parse(&written).unwrap(), rule);
    }

    #[test]
    fn a_table_has_a_schema_and_a_name() {
        assert!(is_table_name("public.products"));
        for bad in ["products", "a.b.c", ".b", "a.", "a.b\0", &format!("a.{}", "b".repeat(64))] {
            assert!(!is_table_name(bad), "{bad}");
        }
    }
}
