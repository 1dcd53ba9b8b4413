//! The inputs of a step with tool `db_write`: `{table, op, values, where, set, expected_rows}`, and whether a rule allows them.
//!
//! - insert: `values` is a list of objects with the same columns;
//! - update: `where` is an object of key columns, `set` an object of columns;
//! - delete: `where` is an object of key columns.
//!
//! An insert must write all rows in `values`. With `expected_rows`, an update or delete must touch exactly that many
//! rows.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::fields::{self, Fields, Names, Null};
use super::outcome::StepError;
use super::problem::Problem;
use super::rule::{MAX_ROWS, Op, Rule};

/// A parsed operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    pub table: Table,
    pub kind: Kind,
    /// The number of rows that the operation must touch.
    pub expected_rows: Option<usize>,
}

/// `schema.table`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub schema: String,
    pub name: String,
}

/// The kind of operation, with its rows or columns.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Insert { rows: Vec<Map<String, Value>> },
    Update { key: Map<String, Value>, set: Map<String, Value> },
    Delete { key: Map<String, Value> },
}

const INSERT: &[Names] = &[&["table"], &["op"], &["values"], &["expected_rows"]];
const UPDATE: &[Names] = &[&["table"], &["op"], &["where"], &["set"], &["expected_rows"]];
const DELETE: &[Names] = &[&["table"], &["op"], &["where"], &["expected_rows"]];
const ANY: &[Names] = &[&["table"], &["op"], &["values"], &["where"], &["set"], &["expected_rows"]];

impl Operation {
    /// Reads a step's inputs.
    pub fn parse(inputs: &Value) -> Result<Self, Vec<Problem>> {
        let op = Op::deserialize(&inputs["op"]).ok();
        let known = match op {
            Some(Op::Insert) => INSERT,
            Some(Op::Update) => UPDATE,
            Some(Op::Delete) => DELETE,
            None => ANY,
        };
        fields::read(inputs, "inputs", known, Null::Wrong, |fields| {
            fields.require(&["table"]);
            let table = fields.read("table", |value| {
                let table = value.as_str().and_then(Table::parse);
                table.ok_or_else(|| "must be a name like public.products".to_owned())
            });
            let expected_rows = fields.whole("expected_rows", 0..=MAX_ROWS as u64);
            let Some(op) = op else {
                fields.problem("op", "must be insert, update or delete");
                return None;
            };
            let kind = match op {
                Op::Insert => Kind::Insert { rows: insert_rows(fields, expected_rows)? },
                Op::Update => {
                    let (key, set) = (columns(fields, "where"), columns(fields, "set"));
                    Kind::Update { key: key?, set: set? }
                }
                Op::Delete => Kind::Delete { key: columns(fields, "where")? },
            };
            let row_count = if let Kind::Insert { rows } = &kind { Some(rows.len()) } else { None };
            Some(Self { table: table?, kind, expected_rows: row_count.or(expected_rows) })
        })
    }
}

fn columns(fields: &mut Fields<'_, '_>, name: &str) -> Option<Map<String, Value>> {
    fields.require(&[name]);
    fields.read(name, |value| {
        let columns = value.as_object().filter(|columns| !columns.is_empty()).cloned();
        columns.ok_or_else(|| "must be an object with at least one column".to_owned())
    })
}

/// The rows of an insert. `expected` must be their number.
fn insert_rows(fields: &mut Fields<'_, '_>, expected: Option<usize>) -> Option<Vec<Map<String, Value>>> {
    fields.require(&["values"]);
    let rows = fields.read("values", rows)?;
    if let Some(expected) = expected.filter(|expected| *expected != rows.len()) {
        let message = format!("is {expected}, but inputs.values has {} rows", rows.len());
        fields.problem("expected_rows", message);
    }
    Some(rows)
}

impl Rule {
    /// Refuses an operation that the rule does not allow.
    pub fn check(&self, operation: &Operation) -> Result<(), StepError> {
        let (table, kind) = (operation.table.to_string(), &operation.kind);
        self.check_op(&table, kind.op())?;
        self.check_columns(&table, &kind.written_columns())?;
        match kind {
            Kind::Insert { rows } if rows.len() > self.max_rows => {
                let (rows, most) = (rows.len(), self.max_rows);
                let message = format!("the write has {rows} rows; the rule for {table} allows {most}");
                Err(StepError::new("too_many_rows", message))
            }
            Kind::Insert { .. } => Ok(()),
            Kind::Update { .. } | Kind::Delete { .. } => self.check_key(&table, kind.op(), &kind.key_columns()),
        }
    }

    /// Refuses an operation that the rule does not list.
    pub fn check_op(&self, table: &str, op: Op) -> Result<(), StepError> {
        if self.allowed_ops.contains(&op) {
            return Ok(());
        }
        Err(StepError::new("op_not_allowed", format!("the rule for {table} does not allow {}", op.name())))
    }

    /// Refuses a write to a column that the rule does not list.
    pub fn check_columns(&self, table: &str, written: &[&str]) -> Result<(), StepError> {
        let is_refused = |column: &&&str| !self.columns.iter().any(|allowed| allowed.as_str() == **column);
        let Some(column) = written.iter().find(is_refused) else { return Ok(()) };
        let message = format!("the rule for {table} does not allow writing column \"{column}\"");
        Err(StepError::new("column_not_allowed", message))
    }

    /// Refuses to select rows by other columns than exactly those of the rule's key.
    pub fn check_key(&self, table: &str, op: Op, columns: &[&str]) -> Result<(), StepError> {
        let (key, op) = (&self.key, op.name());
        let is_whole = columns.len() == key.len() && key.iter().all(|key| columns.contains(&key.as_str()));
        if is_whole && !key.is_empty() {
            return Ok(());
        }
        let message = if key.is_empty() {
            format!("the rule for {table} has no key, so it allows no {op}")
        } else {
            format!("{op} on {table} must select rows by exactly {}", key.join(", "))
        };
        Err(StepError::new("predicate_not_allowed", message))
    }
}

impl Kind {
    pub fn op(&self) -> Op {
        match self {
            Self::Insert { .. } => Op::Insert,
            Self::Update { .. } => Op::Update,
            Self::Delete { .. } => Op::Delete,
        }
    }

    /// The columns to write.
    pub fn written_columns(&self) -> Vec<&str> {
        match self {
            Self::Insert { rows } => rows.first().into_iter().flat_map(Map::keys).map(String::as_str).collect(),
            Self::Update { set, .. } => set.keys().map(String::as_str).collect(),
            Self::Delete { .. } => Vec::new(),
        }
    }

    /// The columns that select rows.
    pub fn key_columns(&self) -> Vec<&str> {
        match self {
            Self::Insert { .. } => Vec::new(),
            Self::Update { key, .. } | Self::Delete { key } => key.keys().map(String::as_str).collect(),
        }
    }
}

impl Table {
    fn parse(text: &str) -> Option<Self> {
        let (schema, name) = text.split_once('.')?;
        let is_name = |part: &str| !part.is_empty() && part.len() <= 63 && !part.contains(['.', '\0']);
        (is_name(schema) && is_name(name)).then(|| Self { schema: schema.into(), name: name.into() })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

fn rows(values: &Value) -> Result<Vec<Map<String, Value>>, String> {
    let values = values.as_array().filter(|values| (1..=MAX_ROWS).contains(&values.len()));
    let values = values.ok_or_else(|| format!("must be a list of 1 to {MAX_ROWS} rows"))?;
    let rows: Option<Vec<_>> = values.iter().map(|row| row.as_object().cloned()).collect();
    let rows = rows.ok_or("must be a list of objects")?;
    let first = &rows[0];
    if first.is_empty() {
        return Err("must have rows with at least one column".to_owned());
    }
    if rows.iter().any(|row| row.len() != first.len() || !row.keys().all(|key| first.contains_key(key))) {
        return Err("must have rows with the same columns".to_owned());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problem(inputs: &Value) -> String {
        StepError::invalid_inputs(Operation::parse(inputs).expect_err("invalid inputs")).message
    }

    #[test]
    fn sql_in_a_plan_is_rejected() {
        let text = json!({"table": "public.products", "op": "delete", "where": "1=0; drop table products"});
        assert!(problem(&text).contains("inputs.where: must be an object"));
        let empty = json!({"table": "public.products", "op": "delete", "where": {}});
        assert!(problem(&empty).contains("at least one column"));
        let missing = json!({"table": "public.products", "op": "update", "set": {"price": 1}});
        assert!(problem(&missing).contains("inputs.where"));
        assert!(problem(&json!({"table": "products", "op": "insert"})).contains("public.products"));
        assert!(problem(&json!({"table": "a.b", "op": "truncate"})).contains("insert, update or delete"));
        assert!(problem(&json!({"table": "a.b", "op": "insert", "sql": "x", "values": []})).contains("inputs.sql"));
        let many = json!({"table": "a.b", "op": "delete", "where": {"id": 1}, "expected_rows": -1});
        assert!(problem(&many).contains("inputs.expected_rows"));
    }

    #[test]
    fn rows_with_different_columns_are_rejected() {
        let inputs = json!({"table": "a.b", "op": "insert", "values": [{"x": 1}, {"y": 1}]});
        assert!(problem(&inputs).contains("same columns"));
    }

    fn code(rule: &Rule, inputs: &Value) -> String {
        let operation = Operation::parse(inputs).expect("an operation");
        rule.check(&operation).map_or_else(|error| error.code, |()| "allowed".into())
    }

    #[test]
    fn only_what_the_rule_lists_is_allowed() {
        let stored =
            json!({"allowed_ops": ["insert", "update"], "columns": ["name", "price"], "key": ["id"], "max_rows": 1});
        let mut rule = Rule::parse(&stored).unwrap();
        let insert = |values: Value| json!({"table": "public.products", "op": "insert", "values": values});
        let update =
            |key: Value| json!({"table": "public.products", "op": "update", "where": key, "set": {"price": 1}});
        assert_eq!(code(&rule, &insert(json!([{"name": "a"}]))), "allowed");
        assert_eq!(code(&rule, &insert(json!([{"owner": "a"}]))), "column_not_allowed");
        assert_eq!(code(&rule, &insert(json!([{"name": "a"}, {"name": "b"}]))), "too_many_rows");
        assert_eq!(code(&rule, &update(json!({"id": 1}))), "allowed");
        assert_eq!(code(&rule, &update(json!({"price": 1}))), "predicate_not_allowed");
        assert_eq!(code(&rule, &update(json!({"id": 1, "price": 1}))), "predicate_not_allowed");
        let delete = json!({"table": "public.products", "op": "delete", "where": {"id": 1}});
        assert_eq!(code(&rule, &delete), "op_not_allowed");
        rule.key.clear();
        assert_eq!(code(&rule, &update(json!({"id": 1}))), "predicate_not_allowed");
    }
}
