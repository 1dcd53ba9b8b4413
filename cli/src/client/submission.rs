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
}

/// Uploads the plan's workspace and base, and posts the plan.
pub async fn create(api: &Api, submission: &Submission<'_>) -> Result<RunCreated> {
    let document = plan_file::read(submission.file)?;
    let mut body = document.value.clone();
    if let Some(dir) = submission.workspace {
        body["plan"]["workspace"]["archive"] = json!(workspace::upload(api, dir, submission.overlay).await?);
    }
    if let Some(dir) = submission.base {
        body["plan"]["workspace"]["base"] = json!(workspace::upload(api, dir, None).await?);
    }
    api.post("/runs", &body).await.map_err(|error| document.located("", error))
}
