//! What is judged and what it is compared with, unpacked and hashed. None of its code runs here.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use shared::domain::digest::sha256_hex;

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

impl Subject {
    /// The sha256 of each lockfile in this directory or at the root.
    pub fn locks(&self, directory: &str) -> io::Result<BTreeMap<String, String>> {
        const LOCKS: [&str; 9] = [
            "npm-shrinkwrap.json",
            "package-lock.json",
            "requirements.lock",
            "requirements.txt",
            "uv.lock",
            "poetry.lock",
            "pylock.toml",
            "Cargo.lock",
            "go.sum",
        ];
        let mut found = BTreeMap::new();
        for name in LOCKS {
            let beside = format!("{directory}/{name}");
            for path in [name, beside.trim_start_matches('/')] {
                if let Some(text) = self.head.read(path)? {
                    found.insert(path.to_owned(), sha256_hex(&text));
                }
            }
        }
        Ok(found)
    }
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
