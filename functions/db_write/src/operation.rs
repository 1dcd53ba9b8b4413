//! The inputs of a step: `{table, op, values, where, set, expected_rows}`.
//!
//! - insert: `values` is a list of objects with the same columns;
//! - update: `where` is an object of key columns, `set` an object of columns;
//! - delete: `where` is an object of key columns.
//!
//! An insert must write all rows in `values`. With `expected_rows`, an update or delete must touch exactly that many
//! rows.

use std::fmt;

use serde_json::{Map, Value};
use shared::domain::rule::{MAX_ROWS, Op};

use crate::refusal::Refusal;

/// A parsed operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    pub table: Table,
    pub kind: Kind,
    /// How many rows it must touch.
    pub expected_rows: Option<usize>,
}

/// `schema.table`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub schema: String,
    pub name: String,
}

/// What to do with the table.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Insert { rows: Vec<Map<String, Value>> },
    Update { key: Map<String, Value>, set: Map<String, Value> },
    Delete { key: Map<String, Value> },
}

impl Operation {
    /// Reads a step's inputs.
    pub(crate) fn parse(inputs: &Value) -> Result<Self, Refusal> {
        let invalid = |message: String| Refusal::denied("invalid_inputs", message);
        let object = inputs.as_object().ok_or_else(|| invalid("inputs must be an object".into()))?;
        let op = object.get("op").and_then(Value::as_str).unwrap_or_default();
        let allowed: &[&str] = match op {
            "insert" => &["table", "op", "values", "expected_rows"],
            "update" => &["table", "op", "where", "set", "expected_rows"],
            "delete" => &["table", "op", "where", "expected_rows"],
            _ => return Err(invalid("inputs.op must be insert, update or delete".into())),
        };
        if let Some(unknown) = object.keys().find(|key| !allowed.contains(&key.as_str())) {
            return Err(invalid(format!(
                "inputs.{unknown} is not an input of {op}; the inputs are {}",
                allowed.join(", ")
            )));
        }
        let table = Table::parse(object.get("table").and_then(Value::as_str).unwrap_or_default())
            .ok_or_else(|| invalid("inputs.table must be a name like public.products".into()))?;
        let columns = |name: &str| match object.get(name) {
            Some(Value::Object(columns)) if !columns.is_empty() => Ok(columns.clone()),
            _ => Err(invalid(format!("inputs.{name} must be an object with at least one column"))),
        };
        let kind = match op {
            "insert" => Kind::Insert { rows: rows(object.get("values")).map_err(invalid)? },
            "update" => Kind::Update { key: columns("where")?, set: columns("set")? },
            _ => Kind::Delete { key: columns("where")? },
        };
        let expected = match object.get("expected_rows") {
            None => None,
            Some(value) => Some(
                value
                    .as_u64()
                    .and_then(|rows| usize::try_from(rows).ok())
                    .filter(|rows| *rows <= MAX_ROWS)
                    .ok_or_else(|| {
                        invalid(format!("inputs.expected_rows must be a whole number from 0 to {MAX_ROWS}"))
                    })?,
            ),
        };
        let listed = match &kind {
            Kind::Insert { rows } => Some(rows.len()),
            Kind::Update { .. } | Kind::Delete { .. } => None,
        };
        if let (Some(listed), Some(expected)) = (listed, expected)
            && listed != expected
        {
            return Err(invalid(format!("inputs.values has {listed} rows, but inputs.expected_rows is {expected}")));
        }
        Ok(Self { table, kind, expected_rows: listed.or(expected) })
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

    /// Columns that it writes.
    pub fn written(&self) -> Vec<&str> {
        match self {
            Self::Insert { rows } => rows.first().into_iter().flat_map(Map::keys).map(String::as_str).collect(),
            Self::Update { set, .. } => set.keys().map(String::as_str).collect(),
            Self::Delete { .. } => Vec::new(),
        }
    }

    /// Columns by which it finds rows.
    pub fn finding(&self) -> Vec<&str> {
        match self {
            Self::Insert { .. } => Vec::new(),
            Self::Update { key, .. } | Self::Delete { key } => key.keys().map(String::as_str).collect(),
        }
    }
}

impl Table {
    fn parse(text: &str) -> Option<Self> {
        let (schema, name) = text.split_once('.')?;
        let plain = |part: &str| !part.is_empty() && part.len() <= 63 && !part.contains(['.', '\0']);
        (plain(schema) && plain(name)).then(|| Self { schema: schema.into(), name: name.into() })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

fn rows(values: Option<&Value>) -> Result<Vec<Map<String, Value>>, String> {
    let Some(Value::Array(values)) = values else {
        return Err("inputs.values must be a list of rows".into());
    };
    if values.is_empty() || values.len() > MAX_ROWS {
        return Err(format!("inputs.values must have 1 to {MAX_ROWS} rows"));
    }
    let rows: Option<Vec<_>> = values.iter().map(|row| row.as_object().cloned()).collect();
    let rows = rows.ok_or("each row of inputs.values must be an object")?;
    let first = &rows[0];
    if first.is_empty() {
        return Err("the rows of inputs.values have no column".into());
    }
    if rows.iter().any(|row| row.len() != first.len() || !row.keys().all(|key| first.contains_key(key))) {
        return Err("the rows of inputs.values must all have the same columns".into());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(inputs: &Value) -> String {
        match Operation::parse(inputs) {
            Err(Refusal::Denied(error)) => error.message,
            other => panic!("not refused: {:?}", other.is_ok()),
        }
    }

    #[test]
    fn sql_text_has_no_place_in_a_plan() {
        let text = json!({"table": "public.products", "op": "delete", "where": "1=0; drop table products"});
        assert!(refused(&text).contains("inputs.where must be an object"));
        let empty = json!({"table": "public.products", "op": "delete", "where": {}});
        assert!(refused(&empty).contains("at least one column"));
        let missing = json!({"table": "public.products", "op": "update", "set": {"price": 1}});
        assert!(refused(&missing).contains("inputs.where"));
        assert!(refused(&json!({"table": "products", "op": "insert"})).contains("public.products"));
        assert!(refused(&json!({"table": "a.b", "op": "truncate"})).contains("insert, update or delete"));
        assert!(refused(&json!({"table": "a.b", "op": "insert", "sql": "x", "values": []})).contains("inputs.sql"));
        let many = json!({"table": "a.b", "op": "delete", "where": {"id": 1}, "expected_rows": -1});
        assert!(refused(&many).contains("inputs.expected_rows"));
    }

    #[test]
    fn rows_with_different_columns_are_refused() {
        let inputs = json!({"table": "a.b", "op": "insert", "values": [{"x": 1}, {"y": 1}]});
        assert!(refused(&inputs).contains("same columns"));
    }
}
