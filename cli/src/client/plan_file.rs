//! Reads plan files: the body of `POST /runs`, in JSON or YAML.

use std::path::Path;

use anyhow::Result;
use nofx_local::report::hinted;
use serde_json::Value;

use crate::client::document::Document;

/// The key in which editors find the schema of the file. It is removed, because the API refuses it.
const SCHEMA: &str = "$schema";

/// A document whose value is an object with the key `plan`. `-` is standard input.
pub fn read(path: &Path) -> Result<Document> {
    let mut document = Document::read(path)?;
    if let Some(fields) = document.value.as_object_mut() {
        fields.remove(SCHEMA);
    }
    if document.value.get("plan").is_some_and(Value::is_object) {
        return Ok(document);
    }
    Err(hinted(
        format!("{} contains no plan", document.name),
        r#"a plan looks like {"plan": {"goal": "...", "steps": [{"name": "...", "tool": "..."}]}}, or the same in YAML"#,
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_key_of_the_schema_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.json");
        fs::write(&path, r#"{"$schema": "plan.schema.json", "plan": {"$schema": 1}, "more": 2}"#).unwrap();
        assert_eq!(read(&path).unwrap().value, json!({"plan": {"$schema": 1}, "more": 2}));
    }

    #[test]
    fn a_file_without_a_plan_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for text in [r#"{"$schema": "plan.schema.json"}"#, "[]", r#"{"plan": []}"#] {
            let path = dir.path().join("plan.json");
            fs::write(&path, text).unwrap();
            assert!(read(&path).unwrap_err().to_string().ends_with("plan.json contains no plan"), "{text}");
        }
    }
}
