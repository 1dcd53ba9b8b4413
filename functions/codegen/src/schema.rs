//! Checks a JSON value against the part of JSON Schema that models follow. Other keywords are the provider's to enforce.

use serde_json::{Map, Value};

/// Deeper values and schemas are not checked. The parser refuses values deeper than 128.
const MAX_DEPTH: usize = 32;

/// Why the value does not match the schema. `None` if it does. Shows no part of the value or the schema.
pub(crate) fn problem(schema: &Value, value: &Value) -> Option<String> {
    let keyword = check(schema, value, 0).err()?;
    Some(format!("the answer does not match its JSON schema ({keyword})"))
}

/// Whether the schema is one that OpenAI enforces: no object has other members than those it lists, and all are required.
pub(crate) fn is_strict(schema: &Value) -> bool {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return schema.get("type") != Some(&"object".into()) && schema.get("items").is_none_or(is_strict);
    };
    let required = schema.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    schema.get("additionalProperties") == Some(&Value::Bool(false))
        && properties.keys().all(|name| required.iter().any(|required| required == name))
        && properties.values().all(is_strict)
}

/// The keyword that the value breaks.
fn check(schema: &Value, value: &Value, depth: usize) -> Result<(), &'static str> {
    let Some(schema) = schema.as_object().filter(|_| depth < MAX_DEPTH) else { return Ok(()) };
    if schema.get("type").is_some_and(|kind| !has_type(kind, value)) {
        return Err("type");
    }
    if let Some(Value::Array(allowed)) = schema.get("enum")
        && !allowed.contains(value)
    {
        return Err("enum");
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Err("const");
    }
    match value {
        Value::Object(members) => check_members(schema, members, depth),
        Value::Array(items) => {
            let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
            let length = items.len() as u64;
            if limit("minItems").is_some_and(|least| length < least) {
                return Err("minItems");
            }
            if limit("maxItems").is_some_and(|most| length > most) {
                return Err("maxItems");
            }
            let Some(item_schema) = schema.get("items") else { return Ok(()) };
            items.iter().try_for_each(|item| check(item_schema, item, depth + 1))
        }
        _ => Ok(()),
    }
}

fn check_members(schema: &Map<String, Value>, members: &Map<String, Value>, depth: usize) -> Result<(), &'static str> {
    let mut required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    if required.any(|name| !members.contains_key(name)) {
        return Err("required");
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, value) in members {
        match properties.and_then(|properties| properties.get(name)) {
            Some(property) => check(property, value, depth + 1)?,
            None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                return Err("additionalProperties");
            }
            None => {}
        }
    }
    Ok(())
}

/// `kind` is a name or a list of names.
fn has_type(kind: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        // Not a type of JSON Schema. The provider refuses the schema.
        _ => true,
    };
    match kind {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_strict_schema_lists_and_requires_every_member() {
        let object = |closed: bool, required: &[&str], of: Value| json!({ "type": "object", "additionalProperties": !closed, "required": required, "properties": { "a": of } });
        let text = json!({ "type": "string" });
        let inner = object(true, &["a"], text.clone());
        assert!(is_strict(&inner) && is_strict(&object(true, &["a"], json!({ "type": "array", "items": inner }))));
        for loose in [
            json!({ "type": "object" }),
            object(false, &["a"], text.clone()),
            object(true, &[], text.clone()),
            object(true, &["a"], object(false, &["a"], text.clone())),
            object(true, &["a"], json!({ "type": "array", "items": { "type": "object" } })),
        ] {
            assert!(!is_strict(&loose), "{loose}");
        }
    }

    #[test]
    fn the_keyword_that_a_value_breaks_is_named() {
        let schema = json!({
            "type": "object", "required": ["files"], "additionalProperties": false,
            "properties": {
                "files": { "type": "array", "maxItems": 2, "items": {
                    "type": "object", "required": ["path"],
                    "properties": { "path": { "type": "string" }, "mode": { "enum": ["a", "b"] }, "size": { "type": ["integer", "null"] } },
                } },
            },
        });
        let file = |mode: &str| json!({ "path": "a", "mode": mode, "size": 1.0 });
        assert_eq!(problem(&schema, &json!({ "files": [file("a"), file("b")] })), None);
        for (value, keyword) in [
            (json!([]), "type"),
            (json!({}), "required"),
            (json!({ "files": [], "x": 1 }), "additionalProperties"),
            (json!({ "files": [file("a"), file("a"), file("a")] }), "maxItems"),
            (json!({ "files": [{}] }), "required"),
            (json!({ "files": [file("c")] }), "enum"),
            (json!({ "files": [{ "path": "a", "size": 1.5 }] }), "type"),
        ] {
            let expected = format!("the answer does not match its JSON schema ({keyword})");
            assert_eq!(problem(&schema, &value), Some(expected), "{value}");
        }
    }
}
