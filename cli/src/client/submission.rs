//! Submits plans, with the workspaces that they use.

use std::path::Path;

use anyhow::Result;
use serde_json::json;
use shared::view::RunCreated;
use uuid::Uuid;

use crate::client::api::Api;
use crate::client::{plan_file, workspace};

/// A plan to submit.
#[derive(Clone, Debug)]
pub struct Submission<'a> {
    pub file: &'a Path,
    pub workspace: Option<&'a Path>,
    pub overlay: Option<&'a Path>,
    /// A folder, or a Git reference of the workspace's repository.
    pub base: Option<&'a str>,
    /// Who starts the run.
    pub actor: Option<String>,
}

/// Uploads the plan's workspace and base, and posts the plan.
pub async fn create(api: &Api, submission: &Submission<'_>) -> Result<RunCreated> {
    let document = plan_file::read(submission.file)?;
    let mut body = document.value.clone();
    // Nothing is uploaded if one of them cannot be read.
    let archive = submission.workspace.map(|dir| workspace::pack(dir, submission.overlay)).transpose()?;
    let of = submission.workspace.unwrap_or(Path::new("."));
    let base = submission.base.map(|base| workspace::pack_base(of, base)).transpose()?;
    if let Some(archive) = archive {
        body["plan"]["workspace"]["archive"] = json!(workspace::upload(api, &of.display(), archive).await?);
    }
    if let (Some(archive), Some(name)) = (base, submission.base) {
        body["plan"]["workspace"]["base"] = json!(workspace::upload(api, &name, archive).await?);
    }
    if let Some(name) = &submission.actor {
        body["actor"] = json!(name);
    }
    let key = Uuid::new_v4().to_string();
    api.post_once("/runs", &body, &key).await.map_err(|error| document.located("", error))
}
