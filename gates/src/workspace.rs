//! Prepares the workspace and the base to compare it with.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use shared::domain::digest::hex;

use crate::attempt::{Attempt, remove};
use crate::blocking::spawn_blocking;
use crate::config::GateConfig;
use crate::coverage::{Base, ChangeSet, CoverageError, SourceRules};
use crate::finding::{Digests, ExamineError, InfraError, Reason};
use crate::tree;
use crate::unpack::{Limits, WorkspaceError, unpack};

/// The archives that the plan's workspace names, read and verified.
#[derive(Debug, Clone)]
pub struct Archives {
    pub workspace: StoredArchive,
    pub base: Option<StoredArchive>,
    pub diff: Option<StoredArchive>,
}

#[derive(Debug, Clone)]
pub struct StoredArchive {
    pub bytes: Vec<u8>,
    /// sha256 in lower-case hex, verified.
    pub hash: String,
}

/// What to compare the workspace with.
#[derive(Debug)]
enum BaseSource {
    Nothing,
    Folder(PathBuf),
    Diff(Vec<u8>),
}

/// A workspace that is ready to run. None of its code has run yet.
#[derive(Debug)]
pub struct PreparedWorkspace {
    pub digests: Digests,
    /// The changed lines, for `gate:unit` only. They are computed before the tests run, because tests could rewrite the
    /// sources.
    pub changes: Option<Result<ChangeSet, CoverageError>>,
}

/// Fills the attempt's folders.
pub async fn prepare(
    archives: Option<Archives>,
    config: &GateConfig,
    attempt: &Arc<Attempt>,
    needs_changes: bool,
) -> Result<PreparedWorkspace, ExamineError> {
    let (config, attempt) = (config.clone(), Arc::clone(attempt));
    let prepared = spawn_blocking(move || match archives {
        Some(archives) => prepare_archives(archives, &config, &attempt, needs_changes),
        None => prepare_default(&config, &attempt, needs_changes),
    });
    let prepared = prepared.await.map_err(InfraError::task_failed)?;
    prepared.map_err(|error| match error {
        WorkspaceError::Archive(message) => Reason::new("archive_refused", message).into(),
        WorkspaceError::Workspace(reason) => reason.into(),
        WorkspaceError::Io(error) => error.into(),
    })
}

fn prepare_archives(
    archives: Archives,
    config: &GateConfig,
    attempt: &Attempt,
    needs_changes: bool,
) -> Result<PreparedWorkspace, WorkspaceError> {
    unpack_named("workspace", &archives.workspace, &attempt.workspace(), config.unpack, attempt)?;
    let mut digests =
        Digests { workspace: Some(archives.workspace.hash), workspace_kind: Some("archive"), ..Digests::default() };
    let base = match (archives.diff, archives.base) {
        (Some(diff), _) => {
            (digests.base, digests.base_kind) = (Some(diff.hash), Some("diff"));
            BaseSource::Diff(diff.bytes)
        }
        (None, Some(base)) => {
            if needs_changes {
                unpack_named("base", &base, &attempt.base(), config.unpack, attempt)?;
            }
            (digests.base, digests.base_kind) = (Some(base.hash), Some("archive"));
            BaseSource::Folder(attempt.base())
        }
        (None, None) => BaseSource::Nothing,
    };
    finish(digests, &base, &config.sources, attempt, needs_changes)
}

fn unpack_named(
    what: &str,
    stored: &StoredArchive,
    target: &Path,
    limits: Limits,
    attempt: &Attempt,
) -> Result<(), WorkspaceError> {
    unpack(&stored.bytes, target, limits, &|| attempt.check_cancelled()).map_err(|error| match error {
        WorkspaceError::Archive(message) => WorkspaceError::Archive(format!("{what}: {message}")),
        other => other,
    })
}

fn prepare_default(
    config: &GateConfig,
    attempt: &Attempt,
    needs_changes: bool,
) -> Result<PreparedWorkspace, WorkspaceError> {
    let no_workspace = |message: &str| WorkspaceError::Workspace(Reason::new("no_workspace", message));
    let Some(from) = &config.default_workspace else {
        return Err(no_workspace("the plan names no workspace and no default is configured; name one in the plan"));
    };
    if !from.is_dir() {
        return Err(no_workspace("the default workspace does not exist"));
    }
    tree::copy_workspace(from, &attempt.workspace(), attempt)?;
    let mut digests = Digests {
        workspace: Some(tree::digest(&attempt.workspace())?),
        workspace_kind: Some("tree"),
        ..Digests::default()
    };
    let base = match &config.default_base {
        Some(base) if base.is_dir() => {
            (digests.base, digests.base_kind) = (Some(tree::digest(base)?), Some("tree"));
            BaseSource::Folder(base.clone())
        }
        // If there is no base or its folder is missing, every line counts as changed.
        Some(_) | None => BaseSource::Nothing,
    };
    finish(digests, &base, &config.sources, attempt, needs_changes)
}

fn finish(
    digests: Digests,
    base: &BaseSource,
    rules: &SourceRules,
    attempt: &Attempt,
    needs_changes: bool,
) -> Result<PreparedWorkspace, WorkspaceError> {
    remove_reports(&attempt.workspace())?;
    let changes = if needs_changes { Some(changes(base, rules, &attempt.workspace())?) } else { None };
    Ok(PreparedWorkspace { digests, changes })
}

/// Removes reports that came with the workspace: only reports of this gate's tests count.
fn remove_reports(root: &Path) -> Result<(), WorkspaceError> {
    for project in tree::projects(root)? {
        let reports = root.join(project).join("coverage");
        match fs::symlink_metadata(&reports) {
            Ok(found) if found.is_dir() => remove(&reports)?,
            Ok(_) => fs::remove_file(&reports)?,
            Err(_) => {}
        }
    }
    Ok(())
}

fn changes(
    base: &BaseSource,
    rules: &SourceRules,
    root: &Path,
) -> Result<Result<ChangeSet, CoverageError>, WorkspaceError> {
    let head = tree::read(root, rules)?;
    Ok(match base {
        BaseSource::Nothing => ChangeSet::between(Base::None, &head, rules),
        BaseSource::Folder(folder) => ChangeSet::between(Base::Tree(&tree::read(folder, rules)?), &head, rules),
        BaseSource::Diff(diff) => ChangeSet::between(Base::Diff(diff), &head, rules),
    })
}

impl StoredArchive {
    /// Computes the hash of these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { hash: hex(&Sha256::digest(&bytes)), bytes }
    }
}
