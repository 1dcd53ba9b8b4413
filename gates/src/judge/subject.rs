//! What is judged and what it is compared with, unpacked and hashed. None of its code runs here.

use std::path::Path;
use std::sync::Arc;

use super::request::{Archive, BaseInput};
use crate::archive;
use crate::attempt::Attempt;
use crate::blocking::spawn_blocking;
use crate::finding::{ExamineError, InfraError, Reason};
use crate::patch;
use crate::snapshot::Snapshot;
use crate::unpack::{Limits, WorkspaceError, unpack};

/// The workspace and its base.
#[derive(Debug)]
pub struct Subject {
    pub head: Snapshot,
    pub base: Option<Snapshot>,
    /// The base as an archive, for a run of its tests.
    pub base_archive: Option<Archive>,
}

/// Unpacks both into the attempt's folders. A base that is given as a diff is made from the workspace: the diff must lead
/// from a tree to exactly this one, so it cannot hide a change.
pub async fn prepare(
    workspace: Archive,
    base: Option<BaseInput>,
    limits: Limits,
    attempt: &Arc<Attempt>,
) -> Result<Subject, ExamineError> {
    let attempt = Arc::clone(attempt);
    let prepared = spawn_blocking(move || prepare_blocking(&workspace, base, limits, &attempt));
    prepared.await.map_err(InfraError::task_failed)?
}

fn prepare_blocking(
    workspace: &Archive,
    base: Option<BaseInput>,
    limits: Limits,
    attempt: &Attempt,
) -> Result<Subject, ExamineError> {
    let head = unpacked("workspace", workspace, &attempt.workspace(), limits, attempt)?;
    let (base, base_archive) = match base {
        None => (None, None),
        Some(BaseInput::Archive(archive)) => {
            (Some(unpacked("base", &archive, &attempt.base(), limits, attempt)?), Some(archive))
        }
        Some(BaseInput::Diff(diff)) => {
            unpacked("workspace", workspace, &attempt.base(), limits, attempt)?;
            patch::revert(&attempt.base(), &diff.bytes).map_err(|error| {
                let message = format!("the diff does not lead to the workspace: {error}");
                Reason::new("diff_mismatch", message)
            })?;
            let base = Snapshot::take(&attempt.base())?;
            let packed = archive::pack(&archive::sources(&base), limits).map_err(refused)?;
            (Some(base), Some(Archive::new(packed)))
        }
    };
    Ok(Subject { head, base, base_archive })
}

fn unpacked(
    what: &str,
    archive: &Archive,
    target: &Path,
    limits: Limits,
    attempt: &Attempt,
) -> Result<Snapshot, ExamineError> {
    unpack(&archive.bytes, target, limits, &|| attempt.check_cancelled()).map_err(|error| match error {
        WorkspaceError::Archive(message) => refused(WorkspaceError::Archive(format!("{what}: {message}"))),
        other => refused(other),
    })?;
    Ok(Snapshot::take(target)?)
}

fn refused(error: WorkspaceError) -> ExamineError {
    match error {
        WorkspaceError::Archive(message) => Reason::new("archive_refused", message).into(),
        WorkspaceError::Workspace(reason) => reason.into(),
        WorkspaceError::Io(error) => error.into(),
    }
}
