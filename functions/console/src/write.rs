//! What a step with `db_write` does to its table, for people who decide about it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use shared::db::console::{NamedOutputs, Start};
use shared::domain::bounds::Shape;
use shared::domain::plan::MAX_JSON_DEPTH;
use shared::domain::reference::{Reference, ReferencedValue, SizeLimits, add_nested_values, resolve};
use shared::domain::rule::{Op, Rule};

/// The size of inputs with the values that they refer to.
const LIMITS: SizeLimits = SizeLimits { bytes: 256 << 10, memory: 8 << 20, depth: MAX_JSON_DEPTH };

/// A write, as far as the inputs say it.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub op: Op,
    /// Rows of an insert.
    pub rows: Vec<Map<String, Value>>,
    /// Columns that find rows, and columns that change.
    pub key: Map<String, Value>,
    pub set: Map<String, Value>,
    /// Whether all values are known. Otherwise some are references to outputs.
    pub is_resolved: bool,
}

/// Why the tenant's rule will refuse a write, or that it does not.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Allowed(Box<Rule>),
    Refused(&'static str),
}

impl Write {
    /// Reads the inputs of a step. `None` if it is no `db_write`, or its inputs are too large or cannot be read.
    pub fn of(start: &Start) -> Option<Self> {
        let inputs = start.inputs.as_ref()?;
        let resolved = start.refs.as_deref().and_then(|refs| with_values(inputs, refs));
        let has_references = inputs.to_string().contains("${{");
        let is_resolved = resolved.is_some() || !has_references;
        let inputs = resolved.as_ref().unwrap_or(inputs);
        let columns = |name: &str| inputs[name].as_object().cloned().unwrap_or_default();
        let rows = inputs["values"].as_array().into_iter().flatten().filter_map(Value::as_object).cloned().collect();
        Some(Self {
            op: Op::deserialize(&inputs["op"]).ok()?,
            rows,
            key: columns("where"),
            set: columns("set"),
            is_resolved,
        })
    }

    /// The columns of the rows, in the order of their names.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = self.rows.iter().flat_map(Map::keys).map(String::as_str).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// What the table's rule says, as far as it can be known before the write.
    pub fn verdict(&self, rule: Option<&Value>) -> Verdict {
        let Some(rule) = rule else {
            return Verdict::Refused("No rule lets plans write this table, so the step will fail.");
        };
        let Ok(rule) = Rule::parse(rule) else {
            return Verdict::Refused("The rule of this table is malformed, so the step will fail.");
        };
        let written = self.columns().into_iter().chain(self.set.keys().map(String::as_str));
        let is_listed = |column: &str| rule.columns.iter().any(|listed| listed == column);
        if !rule.allowed_ops.contains(&self.op) {
            Verdict::Refused("The rule of this table does not allow this operation, so the step will fail.")
        } else if self.rows.len() > rule.max_rows {
            Verdict::Refused("The rule of this table allows fewer rows, so the step will fail.")
        } else if !written.into_iter().all(is_listed) {
            Verdict::Refused("The rule of this table does not allow all of these columns, so the step will fail.")
        } else {
            Verdict::Allowed(Box::new(rule))
        }
    }
}

/// The inputs with the values that they refer to. `None` if some are missing or too large.
fn with_values(inputs: &Value, refs: &[NamedOutputs]) -> Option<Value> {
    let whole = refs.iter().map(|named| {
        let reference = Reference { step: named.step.clone(), path: Vec::new() };
        (reference, ReferencedValue::new(named.outputs.clone(), &named.outputs.to_string()))
    });
    let mut values: BTreeMap<_, _> = whole.collect();
    add_nested_values(inputs, &mut values);
    resolve(inputs.clone(), Shape::of(&inputs.to_string()), &values, LIMITS).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn start(inputs: &Value, refs: &Value) -> Start {
        let start = json!({"name": "rates", "tool": "db_write", "status": "pending", "blockers": 1, "inputs": inputs,
                           "refs": refs, "table": "public.rates", "rule": null, "rule_actor": null, "rule_at": null});
        serde_json::from_value(start).unwrap()
    }

    #[test]
    fn references_become_the_values_that_will_be_written() {
        let inputs = json!({"table": "public.rates", "op": "insert", "values": "${{ steps.calc.outputs.rows }}"});
        let refs = json!([{"step": "calc", "outputs": {"rows": [{"price": 5, "country": "DE"}, {"country": "AT"}]}}]);
        let write = Write::of(&start(&inputs, &refs)).unwrap();
        assert_eq!((write.rows.len(), write.columns(), write.is_resolved), (2, vec!["country", "price"], true));
        assert_eq!(write.rows[0]["price"], 5);
        // The step has not run, or its outputs are too large for the page.
        for refs in [json!([]), Value::Null, json!([{"step": "calc", "outputs": {}}])] {
            let write = Write::of(&start(&inputs, &refs)).unwrap();
            assert_eq!((write.rows.len(), write.is_resolved), (0, false));
        }
    }

    #[test]
    fn inputs_that_are_no_write_have_no_preview() {
        for inputs in [json!({"op": "truncate"}), json!([]), json!({}), Value::Null] {
            assert_eq!(Write::of(&start(&inputs, &Value::Null)), None);
        }
    }

    #[test]
    fn a_rule_that_will_refuse_the_write_says_so_before_the_decision() {
        let rows = json!([{"country": "DE"}, {"country": "AT"}]);
        let write = Write::of(&start(&json!({"op": "insert", "values": rows}), &Value::Null)).unwrap();
        let rule = |columns: Value, ops: Value| json!({"allowed_ops": ops, "columns": columns, "max_rows": 2});
        let verdict = |rule: Option<Value>| match write.verdict(rule.as_ref()) {
            Verdict::Allowed(_) => "",
            Verdict::Refused(sentence) => sentence,
        };
        assert_eq!(verdict(Some(rule(json!(["country"]), json!(["insert"])))), "");
        assert!(verdict(None).starts_with("No rule"));
        assert!(verdict(Some(json!({"allowed_ops": 7}))).contains("malformed"));
        assert!(verdict(Some(rule(json!(["country"]), json!(["delete"])))).contains("operation"));
        assert!(verdict(Some(rule(json!(["price"]), json!(["insert"])))).contains("columns"));
        let one_row = json!({"allowed_ops": ["insert"], "columns": ["country"], "max_rows": 1});
        assert!(verdict(Some(one_row)).contains("fewer rows"));
    }
}
