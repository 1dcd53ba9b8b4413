//! Tools `workspace:*`: make a workspace that gates can judge, as an archive with its tree digest.
//!
//! `workspace:write` changes a workspace by a patch, files and deletions. `workspace:git` takes a commit of a repository.
//! The same tree gives the same archive, byte for byte. The outputs name the archive, so that later steps can refer to it:
//! `${{ steps.NAME.outputs.workspace }}`.

mod fetch;
mod git;
mod inputs;
mod made;
mod markdown;
mod repository;
mod tree;
mod write;

use std::path::PathBuf;

use nofx_gates::InfraError;
use shared::domain::{Outcome, StepError};
use shared::storage::StepStore;
use shared::worker::{ClaimedStep, Handler};

pub use crate::git::Git;

/// The handler of the tools `workspace:*`.
#[derive(Debug)]
pub struct Workspaces {
    /// Holds only attempts.
    work_dir: PathBuf,
    git: Git,
}

impl Workspaces {
    /// `search_path` is where `git` is found.
    pub fn new(work_dir: PathBuf, search_path: String) -> Self {
        Self { work_dir, git: Git::new(search_path) }
    }

    /// The same with another way to call Git, for tests.
    #[must_use]
    pub fn with_git(self, git: Git) -> Self {
        Self { git, ..self }
    }
}

impl Handler for Workspaces {
    async fn handle(&self, step: &ClaimedStep, store: &StepStore) -> Outcome {
        let made = match step.tool.as_str() {
            "workspace:write" => write::run(&self.work_dir, step, store).await,
            "workspace:git" => repository::run(&self.work_dir, &self.git, step, store).await,
            other => Err(Outcome::failed(StepError::new(
                "unknown_tool",
                format!("unknown tool {other:?}; use workspace:write or workspace:git"),
            ))),
        };
        made.unwrap_or_else(|outcome| outcome)
    }
}

/// A failure outside the workspace. A retry may succeed.
fn infra_failure(error: impl Into<InfraError>) -> Outcome {
    let error = error.into();
    tracing::warn!(code = error.code, %error, "an infrastructure error stopped the step");
    Outcome::retryable(StepError::new(error.code, error.message))
}
