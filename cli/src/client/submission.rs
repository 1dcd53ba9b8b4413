//! Plans on their way to the API, with the workspaces that they work on.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nofx_local::report::hinted;
use serde_json::{Value, json};
use shared::view::RunCreated;

use crate::client::api::Api;
use crate::client::workspace;

/// A plan to submit.
#[derive(Clone, Debug)]
pub struct Submission<'a> {
    pub file: &'a Path,
    pub workspace: Option<&'a Path>,
    pub overlay: Option<&'a Path>,
    pub base: Option<&'a Path>,
}

/// Uploads what the plan works on and posts it.
pub async fn create(api: &Api, submission: &Submission<'_>) -> Result<RunCreated> {
    let path = submission.file.display();
    let text = fs::read_to_string(submission.file).with_context(|| format!("cannot read {path}"))?;
    let mut body: Value = serde_json::from_str(&text).with_context(|| format!("{path} is no JSON"))?;
    if !body.get("plan").is_some_and(Value::is_object) {
        return Err(hinted(
            format!("{path} holds no plan"),
            r#"it looks like {"plan": {"goal": "...", "steps": [...]}}"#,
        ));
    }
    if let Some(dir) = submission.workspace {
        body["plan"]["workspace"]["archive"] = json!(workspace::upload(api, dir, submission.overlay).await?);
    }
    if let Some(dir) = submission.base {
        body["plan"]["workspace"]["base"] = json!(workspace::upload(api, dir, None).await?);
    }
    api.post("/runs", &body).await
}
