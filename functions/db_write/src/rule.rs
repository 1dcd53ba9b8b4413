//! Checks an operation against the rule, before any SQL is sent. Without a rule, or with one that is ambiguous, nothing
//! is allowed.

use serde_json::Value;
use shared::domain::rule::Rule;

use crate::operation::{Kind, Operation};
use crate::refusal::Refusal;

/// Reads a rule as it is stored.
pub(crate) fn read(stored: &Value) -> Result<Rule, Refusal> {
    Rule::parse(stored).map_err(|problems| {
        let why: Vec<_> = problems.iter().map(|problem| format!("{} {}", problem.path, problem.message)).collect();
        let message = format!("the rule for this table cannot be read, so it allows nothing: {}", why.join("; "));
        Refusal::denied("no_rule", message)
    })
}

/// Refuses what the rule does not allow.
pub(crate) fn check(rule: &Rule, operation: &Operation) -> Result<(), Refusal> {
    let (table, op) = (&operation.table, operation.kind.op());
    let Rule { allowed_ops, columns, key, max_rows, .. } = rule;
    if !allowed_ops.contains(&op) {
        let message = format!("the rule for {table} does not allow {}", op.name());
        return Err(Refusal::denied("op_not_allowed", message));
    }
    let written = operation.kind.written();
    if let Some(column) = written.iter().find(|column| !columns.iter().any(|allowed| allowed == *column)) {
        let message = format!("the rule for {table} does not allow writing column \"{column}\"");
        return Err(Refusal::denied("column_not_allowed", message));
    }
    let finding = operation.kind.finding();
    let whole_key = finding.len() == key.len() && key.iter().all(|key| finding.contains(&key.as_str()));
    if !matches!(operation.kind, Kind::Insert { .. }) && (!whole_key || key.is_empty()) {
        let message = if key.is_empty() {
            format!("the rule for {table} has no key, so {} cannot find rows", op.name())
        } else {
            format!("{} on {table} must find rows by exactly {}", op.name(), key.join(", "))
        };
        return Err(Refusal::denied("predicate_not_allowed", message));
    }
    if let Kind::Insert { rows } = &operation.kind
        && rows.len() > *max_rows
    {
        let message = format!("has {} rows; the rule for {table} allows {max_rows}", rows.len());
        return Err(Refusal::denied("too_many_rows", message));
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
            Err(Refusal::Denied(error)) => error.code,
            Err(Refusal::Database(_)) => panic!("no database here"),
        }
    }

    #[test]
    fn only_what_the_rule_names_is_allowed() {
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
    fn a_rule_that_was_stored_before_rules_were_read_strictly_allows_nothing() {
        let stored = json!({"allowed_ops": ["insert"], "max_rows": "1"});
        assert!(matches!(read(&stored), Err(Refusal::Denied(_))));
    }
}
