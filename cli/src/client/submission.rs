//! Submits plans, with the workspaces that they use.

use std::path::Path;

use anyhow::Result;
use serde_json::json;
use shared::view::RunCreated;

use crate::client::api::Api;
use crate::client::{plan_file, workspace};

/// A plan to submit.
#[derive(Clone, Debug)]
pub struct Submission<'a> {
    pub file: &'a Path,
    pub workspace: Option<&'a Path>,
    pub overlay: Option<&'a Path>,
    pub base: Option<&'a Path>,
    /// Who starts the run.
    pub actor: Option<String>,
}

/// Uploads the plan's workspace and base, and posts the plan.
pub async fn create(api: &Api, submission: &Submission<'_>) -> Result<RunCreated> {
    let mut body = plan_file::read(submission.file)?;
    if let Some(dir) = submission.workspace {
        body["plan"]["workspace"]["archive"] = json!(workspace::upload(api, dir, submission.overlay).await?);
    }
    if let Some(dir) = submission.base {
        body["plan"]["workspace"]["base"] = json!(workspace::upload(api, dir, None).await?);
    }
    if let Some(name) = &submission.actor {
        body["actor"] = json!(name);
    }
    api.post("/runs", &body).await
}
