//! Reads artifacts from storage.

use shared::domain::{ArtifactRef, Outcome, StepError};
use shared::error::{Code, Error};
use shared::storage::{StepStore, step_code};

/// Reads a workspace's archive.
pub async fn archive(artifact: &ArtifactRef, store: &StepStore, max_bytes: u64) -> Result<Vec<u8>, Outcome> {
    read(artifact, store, max_bytes)
        .await?
        .map_err(|error| Outcome::failed(StepError::new(step_code(&error, "archive_unusable"), error.to_string())))
}

/// The same for an artifact that the inputs name. Its inner error is a problem of the inputs: an archived artifact, which somebody can
/// restore, is an outcome of its own.
pub async fn input(
    artifact: &ArtifactRef,
    store: &StepStore,
    max_bytes: u64,
) -> Result<Result<Vec<u8>, String>, Outcome> {
    match read(artifact, store, max_bytes).await? {
        Err(error @ Error::Conflict(Code::ArtifactArchived, _)) => {
            Err(Outcome::failed(StepError::new(step_code(&error, "invalid_inputs"), error.to_string())))
        }
        found => Ok(found.map_err(|error| error.to_string())),
    }
}

/// Reads an artifact. The inner error is for the plan's author: it is too large, missing, archived, or has changed. The outer one is
/// the outcome if the storage cannot be reached.
pub async fn read(
    artifact: &ArtifactRef,
    store: &StepStore,
    max_bytes: u64,
) -> Result<Result<Vec<u8>, Error>, Outcome> {
    match store.get(artifact, max_bytes).await {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(error @ (Error::Unavailable { .. } | Error::Internal { .. })) => Err(unavailable(&error)),
        Err(error) => Ok(Err(error)),
    }
}

pub fn unavailable(error: &Error) -> Outcome {
    tracing::warn!(%error, source = ?std::error::Error::source(error), "the step cannot reach storage");
    Outcome::retryable(StepError::new("storage_unavailable", error.to_string()))
}
