//! What a step with `db_write` does to its table, for people who decide about it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use shared::db::console::{NamedOutputs, Start};
use shared::domain::StepError;
use shared::domain::bounds::Shape;
use shared::domain::operation::Operation;
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
    /// How many rows it must touch, if the step says so.
    pub expected_rows: Option<u64>,
    /// Whether all values are known. Otherwise some are references to outputs.
    pub is_resolved: bool,
    /// What the handler reads from these inputs, or why it refuses them.
    pub operation: Result<Operation, String>,
}

/// What can be said before a write about whether it succeeds.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Allowed(Box<Rule>),
    /// The step will fail, for this reason.
    Refused(String),
    /// It depends on outputs that do not exist yet.
    Unknown,
}

impl Write {
    /// Reads the inputs of a step. `None` if it is no `db_write`, or its inputs are too large or cannot be read.
    pub fn of(start: &Start) -> Option<Self> {
        let inputs = start.inputs.as_ref()?;
        let resolved = start.refs.as_deref().and_then(|refs| with_values(inputs, refs));
        let is_resolved = resolved.is_some() || !is_reference(inputs);
        let inputs = resolved.as_ref().unwrap_or(inputs);
        let columns = |name: &str| inputs[name].as_object().cloned().unwrap_or_default();
        let rows = inputs["values"].as_array().into_iter().flatten().filter_map(Value::as_object).cloned().collect();
        let operation = Operation::parse(inputs).map_err(|problems| StepError::invalid_inputs(problems).message);
        Some(Self {
            op: Op::deserialize(&inputs["op"]).ok()?,
            rows,
            key: columns("where"),
            set: columns("set"),
            expected_rows: inputs["expected_rows"].as_u64(),
            is_resolved,
            operation,
        })
    }

    /// The columns of the rows, in the order of their names.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = self.rows.iter().flat_map(Map::keys).map(String::as_str).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// Whether its key has a null, which equals nothing: it finds no row.
    pub fn finds_nothing(&self) -> bool {
        self.op != Op::Insert && self.key.values().any(Value::is_null)
    }

    /// What the handler will say about the inputs and the table's rule. The table itself, its triggers and its rows can still
    /// refuse the write.
    pub fn verdict(&self, table: &str, rule: Option<&Value>) -> Verdict {
        if !self.is_resolved && table.contains(REFERENCE) {
            return Verdict::Unknown;
        }
        let Some(rule) = rule else {
            return Verdict::Refused("no rule lets plans write this table".into());
        };
        let Ok(rule) = Rule::parse(rule) else {
            return Verdict::Refused("the rule of this table is malformed".into());
        };
        let checked = match &self.operation {
            Ok(operation) => rule.check(operation),
            Err(why) if self.is_resolved => return Verdict::Refused(why.clone()),
            Err(_) => match self.check_known(table, &rule) {
                Ok(()) => return Verdict::Unknown,
                refused => refused,
            },
        };
        checked.map_or_else(|error| Verdict::Refused(error.message), |()| Verdict::Allowed(Box::new(rule)))
    }

    /// Checks what does not depend on outputs that are missing.
    fn check_known(&self, table: &str, rule: &Rule) -> Result<(), StepError> {
        rule.check_op(table, self.op)?;
        let written: Vec<&str> = self.columns().into_iter().chain(self.set.keys().map(String::as_str)).collect();
        rule.check_columns(table, &written)?;
        if self.key.is_empty() {
            return Ok(());
        }
        rule.check_key(table, self.op, &self.key.keys().map(String::as_str).collect::<Vec<_>>())
    }
}

/// How a reference to an output starts.
const REFERENCE: &str = "${{";

/// Whether some value is a reference.
fn is_reference(inputs: &Value) -> bool {
    inputs.to_string().contains(REFERENCE)
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
    fn what_the_handler_will_refuse_is_refused_before_the_decision() {
        let rule =
            json!({"allowed_ops": ["insert", "update"], "columns": ["name", "price"], "key": ["id"], "max_rows": 2});
        let verdict = |inputs: Value, rule: Option<&Value>| {
            let mut all = json!({"table": "public.products"});
            all.as_object_mut().unwrap().extend(inputs.as_object().cloned().unwrap());
            let write = Write::of(&start(&all, &Value::Null)).unwrap();
            match write.verdict("public.products", rule) {
                Verdict::Allowed(_) => "allowed".to_owned(),
                Verdict::Refused(why) => why,
                Verdict::Unknown => "unknown".to_owned(),
            }
        };
        let update = |key: Value| json!({"op": "update", "where": key, "set": {"price": 1}});
        let insert = |values: Value| json!({"op": "insert", "values": values});
        assert_eq!(verdict(update(json!({"id": 1})), Some(&rule)), "allowed");
        assert_eq!(verdict(insert(json!([{"name": "a"}, {"name": "b"}])), Some(&rule)), "allowed");
        assert!(verdict(update(json!({"id": 1})), None).starts_with("no rule"));
        assert!(verdict(update(json!({"id": 1})), Some(&json!({"allowed_ops": 7}))).contains("malformed"));
        for key in [json!({"name": "x"}), json!({"id": 1, "name": "x"}), json!({"secret": 1})] {
            assert!(verdict(update(key.clone()), Some(&rule)).contains("must select rows by exactly id"), "{key}");
        }
        for (inputs, why) in [
            (update(json!({})), "inputs.where: must be an object with at least one column"),
            (json!({"op": "update", "where": {"id": 1}, "set": {}}), "inputs.set: must be an object"),
            (insert(json!([])), "inputs.values: must be a list of 1 to"),
            (insert(json!({"name": "a"})), "inputs.values: must be a list of 1 to"),
            (insert(json!([{"name": "a"}, {"price": 1}])), "the same columns"),
            (insert(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}])), "the rule for public.products allows 2"),
            (insert(json!([{"owner": "a"}])), "writing column \"owner\""),
            (json!({"op": "insert", "values": [{"name": "a"}], "where": {"id": 1}}), "inputs.where"),
            (json!({"op": "insert", "values": [{"name": "a"}], "expected_rows": 2}), "inputs.expected_rows"),
            (json!({"op": "delete", "where": {"id": 1}}), "does not allow delete"),
            // What is known already is refused, whatever the values will be.
            (json!({"op": "update", "where": "${{ steps.a.outputs.key }}", "set": {"secret": 1}}), "\"secret\""),
            (json!({"op": "update", "where": {"name": "${{ steps.a.outputs.n }}"}, "set": {"price": 1}}), "exactly id"),
        ] {
            let said = verdict(inputs.clone(), Some(&rule));
            assert!(said.contains(why), "{inputs}: {said}");
        }
        for inputs in [
            json!({"op": "update", "where": "${{ steps.a.outputs.key }}", "set": {"price": 1}}),
            insert(json!("${{ steps.a.outputs.rows }}")),
        ] {
            assert_eq!(verdict(inputs.clone(), Some(&rule)), "unknown", "{inputs}");
        }
        // A value does not change what the rule says.
        let value = update(json!({"id": "${{ steps.a.outputs.id }}"}));
        assert_eq!(verdict(value, Some(&rule)), "allowed");
    }

    #[test]
    fn a_key_that_is_null_finds_nothing() {
        let of = |inputs: &Value| Write::of(&start(inputs, &Value::Null)).unwrap();
        let update = |key: Value| json!({"table": "a.b", "op": "update", "where": key, "set": {"n": null}});
        assert!(of(&update(json!({"id": null}))).finds_nothing() && !of(&update(json!({"id": 1}))).finds_nothing());
        assert!(!of(&json!({"table": "a.b", "op": "insert", "values": [{"id": null}]})).finds_nothing());
        assert_eq!(of(&json!({"op": "delete", "where": {"id": 1}, "expected_rows": 3})).expected_rows, Some(3));
    }
}
