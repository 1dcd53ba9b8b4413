//! Rules: which table, which operations, which columns, how many rows, and what else may change with them. No rule means
//! no, and so does a rule that cannot be read in one way only.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::operation::{Kind, Operation};
use crate::refusal::Refusal;

/// What a tenant may do with a table.
#[derive(Debug, Clone)]
pub struct Rule {
    pub allowed_ops: Vec<String>,
    pub constraints: Constraints,
}

/// The `constraints` of a rule's row.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraints {
    /// Columns that may be written; without the list, none.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Columns that find rows, all of them together; without the list, none.
    #[serde(default)]
    pub key: Vec<String>,
    /// Most rows a statement may touch.
    #[serde(default = "default_max_rows")]
    pub max_rows: usize,
    /// The database role that writes.
    #[serde(default = "default_role")]
    pub role: String,
    /// Triggers and rewrite rules that may run, as `schema.table.name`, each with the sha256 of its definition.
    #[serde(default)]
    pub triggers: BTreeMap<String, String>,
    /// Other tables that cascades and triggers may change, as `schema.table`, each with its most rows.
    #[serde(default)]
    pub dependants: BTreeMap<String, u64>,
    /// What is no plain table and may be written all the same.
    #[serde(default)]
    pub allow: Vec<Allowance>,
}

/// A kind of target that a rule must name to open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowance {
    View,
    ForeignTable,
    Inheritance,
}

/// Bounds what one statement carries, whatever the rule says.
pub(crate) const MAX_ROWS: usize = 1_000;

fn default_max_rows() -> usize {
    100
}

fn default_role() -> String {
    "nofx_writer".into()
}

impl Rule {
    /// Reads a rule's row.
    pub(crate) fn read(allowed_ops: Vec<String>, constraints: &Value) -> Result<Self, Refusal> {
        let unreadable = |why: String| {
            Refusal::denied("no_rule", format!("the rule for this table cannot be read, so it allows nothing: {why}"))
        };
        // A list would be read by position.
        if !constraints.is_object() {
            return Err(unreadable("constraints must be an object".into()));
        }
        let constraints = Constraints::deserialize(constraints).map_err(|error| unreadable(error.to_string()))?;
        if !(1..=MAX_ROWS).contains(&constraints.max_rows) {
            return Err(unreadable(format!("max_rows must be from 1 to {MAX_ROWS}")));
        }
        Ok(Self { allowed_ops, constraints })
    }

    /// Refuses what the rule does not allow, before anything is sent.
    pub(crate) fn check(&self, operation: &Operation) -> Result<(), Refusal> {
        let (table, op) = (&operation.table, operation.kind.name());
        let Constraints { columns, key, max_rows, .. } = &self.constraints;
        if !self.allowed_ops.iter().any(|allowed| allowed == op) {
            return Err(Refusal::denied("op_not_allowed", format!("the rule for {table} does not allow {op}")));
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
                format!("the rule for {table} names no key, so no row can be found for {op}")
            } else {
                format!("{op} on {table} must find rows by exactly {}", key.join(", "))
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

    pub(crate) fn allows(&self, allowance: Allowance) -> bool {
        self.constraints.allow.contains(&allowance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn code(rule: &Rule, inputs: &Value) -> String {
        let Ok(operation) = Operation::parse(inputs) else { panic!("not parsed") };
        match rule.check(&operation) {
            Ok(()) => "allowed".into(),
            Err(Refusal::Denied(error)) => error.code,
            Err(Refusal::Database(_)) => panic!("no database here"),
        }
    }

    fn rule(ops: &[&str], constraints: &Value) -> Rule {
        let ops = ops.iter().map(|&op| op.to_owned()).collect();
        Rule::read(ops, constraints).unwrap_or_else(|_| panic!("a rule: {constraints}"))
    }

    #[test]
    fn only_what_the_rule_names_is_allowed() {
        let constraints = json!({"columns": ["name", "price"], "key": ["id"], "max_rows": 1});
        let rule = rule(&["insert", "update"], &constraints);
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
        let mut keyless = rule;
        keyless.constraints.key.clear();
        assert_eq!(code(&keyless, &update(json!({"id": 1}))), "predicate_not_allowed");
    }

    #[test]
    fn a_rule_that_can_be_read_in_two_ways_is_no_rule() {
        let misread = [
            json!({"max_rows": "1"}),
            json!({"max_rows": -1}),
            json!({"max_rows": 0}),
            json!({"max_rows": 1.0}),
            json!({"max_rows": null}),
            json!({"max_rows": 1_001}),
            json!({"maxrows": 1}),
            json!({"columns": "name"}),
            json!({"columns": [1]}),
            json!({"key": {"id": true}}),
            json!({"dependants": {"public.child": -1}}),
            json!({"allow": ["anything"]}),
            json!([]),
        ];
        for constraints in misread {
            assert!(
                matches!(Rule::read(vec!["insert".into()], &constraints), Err(Refusal::Denied(_))),
                "{constraints}"
            );
        }
        let defaults = rule(&["insert"], &json!({})).constraints;
        assert_eq!((defaults.max_rows, defaults.role.as_str()), (100, "nofx_writer"));
    }
}
