//! Checks responses against the document.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::document::document;

static DOCUMENT: LazyLock<Value> = LazyLock::new(document);
/// Validators by path, method and status.
static VALIDATORS: LazyLock<Mutex<BTreeMap<String, Validator>>> = LazyLock::new(Mutex::default);

/// The differences between a response and the document, one sentence for each. `path` has no query. Empty if the document
/// has no such path or method.
pub fn problems(method: &str, path: &str, status: u64, media_type: Option<&str>, body: &Value) -> Vec<String> {
    let Some((template, operation)) = operation(method, path) else { return Vec::new() };
    let what = format!("{method} {template} -> {status}");
    let response = &operation["responses"][status.to_string()];
    let response = match response["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(&reference[1..]).expect("a response of the document"),
        None => response,
    };
    if response.is_null() {
        return vec![format!("{what} is not in the document")];
    }
    let Some(content) = response["content"].as_object() else {
        let has_body = body.as_str() != Some("");
        return has_body.then(|| format!("{what} has a body; the document promises none")).into_iter().collect();
    };
    let Some((media_type, content)) = media_type.and_then(|media_type| content.get_key_value(media_type)) else {
        return vec![format!("{what} is {media_type:?}, which the document does not promise")];
    };
    faults(&format!("{template}|{method}|{status}|{media_type}"), &content["schema"], body)
        .into_iter()
        .map(|fault| format!("{what}: {fault}"))
        .collect()
}

/// The document's examples that do not match their schema, a sentence each, and the number of those that do.
pub fn examples() -> (Vec<String>, usize) {
    let (mut wrong, mut right) = (Vec::new(), 0);
    walk(&DOCUMENT, "", &mut |place, value| {
        if let (Some(schema), Some(example)) = (value.get("schema"), value.get("example")) {
            let faults = faults(place, schema, example);
            right += usize::from(faults.is_empty());
            wrong.extend(faults.into_iter().map(|fault| format!("{place}: {fault}")));
        }
    });
    (wrong, right)
}

/// The document's references and links that have no target.
pub fn dead_ends() -> Vec<String> {
    let mut ids = BTreeSet::new();
    walk(&DOCUMENT["paths"], "", &mut |_, value| {
        ids.extend(value["responses"].as_object().and(value["operationId"].as_str()));
    });
    let mut dead = Vec::new();
    walk(&DOCUMENT, "", &mut |place, value| {
        let reference = value.get("$ref").and_then(Value::as_str);
        dead.extend(reference.filter(|to| DOCUMENT.pointer(&to[1..]).is_none()).map(|to| format!("{place}: {to}")));
        let operation = value.get("operationId").and_then(Value::as_str);
        dead.extend(operation.filter(|id| !ids.contains(id)).map(|id| format!("{place}: {id}")));
    });
    dead
}

fn walk<'a>(value: &'a Value, place: &str, visit: &mut impl FnMut(&str, &'a Value)) {
    visit(place, value);
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| walk(value, &format!("{place}/{name}"), visit)),
        Value::Array(items) => items.iter().for_each(|value| walk(value, place, visit)),
        _ => {}
    }
}

/// The operation of a path, and the path's template. Templates without parameters win.
fn operation(method: &str, path: &str) -> Option<(&'static str, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let fitting = paths.iter().filter(|(template, _)| fits(template, path));
    let (template, methods) = fitting.min_by_key(|(template, _)| template.matches('{').count())?;
    methods.get(method.to_lowercase()).map(|operation| (template.as_str(), operation))
}

fn fits(template: &str, path: &str) -> bool {
    let (mut ours, mut theirs) = (template.split('/'), path.split('/'));
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return true,
            (Some(ours), Some(theirs)) if ours == theirs || (ours.starts_with('{') && !theirs.is_empty()) => {}
            _ => return false,
        }
    }
}

fn faults(key: &str, schema: &Value, body: &Value) -> Vec<String> {
    let mut validators = VALIDATORS.lock().expect("no test panics here");
    let validator = validators.entry(key.to_owned()).or_insert_with(|| {
        let whole = json!({"allOf": [schema], "components": DOCUMENT["components"]});
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        options.build(&whole).expect("the schema compiles")
    });
    validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_from_the_document_are_found() {
        let health =
            |status, media_type, body: Value| problems("GET", "/health", status, Some(media_type), &body).len();
        let good = json!({"status": "ok", "version": "1"});
        assert_eq!(health(200, "application/json", good.clone()), 0);
        assert_eq!(health(418, "application/json", good.clone()), 1, "a status");
        assert_eq!(health(200, "text/html", good), 1, "a media type");
        assert_eq!(health(200, "application/json", json!({"status": 1})), 2, "a type, and a missing field");
        let problem =
            |code: &str| json!({"type": "/docs/errors#x", "title": "t", "status": 404, "code": code, "detail": "d"});
        let read = |body: Value| problems("GET", "/runs/x", 404, Some("application/problem+json"), &body).len();
        assert_eq!(read(problem("not_found")), 0);
        assert_eq!(read(problem("invalid")), 1, "a code of another status");
        assert!(problems("GET", "/nowhere", 200, None, &json!("")).is_empty());
    }
}
