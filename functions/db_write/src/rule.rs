//! Checks an operation against the rule before the write. Without a readable rule, nothing is allowed.

use serde_json::Value;
use shared::domain::rule::Rule;

use crate::error::WriteError;
use crate::operation::{Kind, Operation};

/// Reads a stored rule.
pub(crate) fn read(stored: &Value) -> Result<Rule, WriteError> {
    Rule::parse(stored).map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(|problem| format!("{} {}", problem.path, problem.message)).collect();
        let message = format!("the rule for this table cannot be read, so it allows nothing: {}", problems.join("; "));
        WriteError::denied("no_rule", message)
    })
}

/// Rejects an operation that the rule does not allow.
pub(crate) fn check(rule: &Rule, operation: &Operation) -> Result<(), WriteError> {
    let (table, op) = (&operation.table, operation.kind.op());
    let Rule { allowed_ops, columns, key, max_rows, .. } = rule;
    if !allowed_ops.contains(&op) {
        let message = format!("the rule for {table} does not allow {}", op.name());
        return Err(WriteError::denied("op_not_allowed", message));
    }
    let written_columns = operation.kind.written_columns();
    if let Some(column) = written_columns.iter().find(|column| !columns.iter().any(|allowed| allowed == *column)) {
        let message = format!("the rule for {table} does not allow writing column \"{column}\"");
        return Err(WriteError::denied("column_not_allowed", message));
    }
    let key_columns = operation.kind.key_columns();
    let is_whole_key = key_columns.len() == key.len() && key.iter().all(|key| key_columns.contains(&key.as_str()));
    if !matches!(operation.kind, Kind::Insert { .. }) && (!is_whole_key || key.is_empty()) {
        let message = if key.is_empty() {
            format!("the rule for {table} has no key, so it allows no {}", op.name())
        } else {
            format!("{} on {table} must select rows by exactly {}", op.name(), key.join(", "))
        };
        return Err(WriteError::denied("predicate_not_allowed", message));
    }
    if let Kind::Insert { rows } = &operation.kind
        && rows.len() > *max_rows
    {
        let message = format!("the write has {} rows; the rule for {table} allows {max_rows}", rows.len());
        return Err(WriteError::denied("too_many_rows", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn code(rule: &Rule, inputs: &Value) -> String {
        let Ok(operation) = Operation::parse(inputs) else { panic!("not parsed") };
        match check(rule, &operation) {
            Ok(()) => "allowed".into(),
            Err(WriteError::Denied(error)) => error.code,
            Err(WriteError::Database(_)) => panic!("this test has no database"),
        }
    }

    #[test]
    fn only_what_the_rule_lists_is_allowed() {
        let stored =
            json!({"allowed_ops": ["insert", "update"], "columns": ["name", "price"], "key": ["id"], "max_rows": 1});
        let mut rule = read(&stored).unwrap_or_else(|_| panic!("a rule"));
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

    #[test]
    fn an_invalid_stored_rule_allows_nothing() {
        let stored = json!({"allowed_ops": ["insert"], "max_rows": "1"});
        assert!(matches!(read(&stored), Err(WriteError::Denied(_))));
    }
}
