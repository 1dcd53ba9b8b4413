//! Files that hold a plan: the body of `POST /runs`, in JSON or YAML.

use std::path::Path;

use anyhow::Result;
use nofx_local::report::hinted;
use serde_json::Value;

use crate::client::document;

/// The object with the plan in it; `-` is standard input.
pub fn read(path: &Path) -> Result<Value> {
    let body = document::read(path)?;
    if body.get("plan").is_some_and(Value::is_object) {
        return Ok(body);
    }
    Err(hinted(
        format!("{} holds no plan", document::name(path)),
        r#"a plan looks like {"plan": {"goal": "...", "steps": [{"name": "...", "tool": "..."}]}}, or the same in YAML"#,
    ))
}
