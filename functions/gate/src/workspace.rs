//! Lays out what is judged: the workspace, and the base that it is compared with.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use shared::domain::digest::hex;

use crate::attempt::{Attempt, remove};
use crate::blocking::spawn_blocking;
use crate::config::GateConfig;
use crate::coverage::{Base, CannotJudge, ChangeSet, SourceRules};
use crate::finding::{Digests, Reason, Stop, Trouble};
use crate::tree;
use crate::unpack::{Limits, Refusal, unpack};

/// The stored objects that the plan's workspace names, read and verified.
#[derive(Debug, Clone)]
pub struct Archives {
    pub workspace: Stored,
    pub base: Option<Stored>,
    pub diff: Option<Stored>,
}

#[derive(Debug, Clone)]
pub struct Stored {
    pub bytes: Vec<u8>,
    /// sha256 in lower-case hex, verified.
    pub hash: String,
}

/// What the workspace is compared with.
#[derive(Debug)]
enum Origin {
    Nothing,
    Folder(PathBuf),
    Diff(Vec<u8>),
}

/// A workspace that is ready. None of its code has run yet.
#[derive(Debug)]
pub struct Laid {
    pub digests: Digests,
    /// The changed lines, for `gate:unit` only. They are determined first, because the tests could rewrite the sources.
    pub changes: Option<Result<ChangeSet, CannotJudge>>,
}

/// Fills the attempt's folders.
pub async fn lay(
    archives: Option<Archives>,
    config: &GateConfig,
    attempt: &Arc<Attempt>,
    needs_changes: bool,
) -> Result<Laid, Stop> {
    let (config, attempt) = (config.clone(), Arc::clone(attempt));
    let laid = spawn_blocking(move || match archives {
        Some(archives) => lay_archives(archives, &config, &attempt, needs_changes),
        None => lay_default(&config, &attempt, needs_changes),
    });
    let laid = laid.await.map_err(Trouble::stopped)?;
    laid.map_err(|refusal| match refusal {
        Refusal::Archive(message) => Reason::new("archive_refused", message).into(),
        Refusal::Workspace(reason) => reason.into(),
        Refusal::Io(error) => error.into(),
    })
}

fn lay_archives(
    archives: Archives,
    config: &GateConfig,
    attempt: &Attempt,
    needs_changes: bool,
) -> Result<Laid, Refusal> {
    unpack_named("workspace", &archives.workspace, &attempt.workspace(), config.unpack, attempt)?;
    let mut digests =
        Digests { workspace: Some(archives.workspace.hash), workspace_kind: Some("archive"), ..Digests::default() };
    let origin = match (archives.diff, archives.base) {
        (Some(diff), _) => {
            (digests.base, digests.base_kind) = (Some(diff.hash), Some("diff"));
            Origin::Diff(diff.bytes)
        }
        (None, Some(base)) => {
            if needs_changes {
                unpack_named("base", &base, &attempt.base(), config.unpack, attempt)?;
            }
            (digests.base, digests.base_kind) = (Some(base.hash), Some("archive"));
            Origin::Folder(attempt.base())
        }
        (None, None) => Origin::Nothing,
    };
    finish(digests, &origin, &config.sources, attempt, needs_changes)
}

fn unpack_named(what: &str, stored: &Stored, target: &Path, limits: Limits, attempt: &Attempt) -> Result<(), Refusal> {
    unpack(&stored.bytes, target, limits, attempt).map_err(|refusal| match refusal {
        Refusal::Archive(message) => Refusal::Archive(format!("{what}: {message}")),
        other => other,
    })
}

fn lay_default(config: &GateConfig, attempt: &Attempt, needs_changes: bool) -> Result<Laid, Refusal> {
    let no_workspace = |message: &str| Refusal::Workspace(Reason::new("no_workspace", message));
    let Some(from) = &config.default_workspace else {
        return Err(no_workspace(
            "the plan names no workspace and no default is configured, so there is nothing to judge",
        ));
    };
    if !from.is_dir() {
        return Err(no_workspace("the default workspace does not exist, so there is nothing to judge"));
    }
    tree::copy_workspace(from, &attempt.workspace(), attempt)?;
    let mut digests = Digests {
        workspace: Some(tree::digest(&attempt.workspace())?),
        workspace_kind: Some("tree"),
        ..Digests::default()
    };
    let origin = match &config.default_base {
        Some(base) if base.is_dir() => {
            (digests.base, digests.base_kind) = (Some(tree::digest(base)?), Some("tree"));
            Origin::Folder(base.clone())
        }
        // Without a base, or if its folder is missing, every line counts as changed.
        Some(_) | None => Origin::Nothing,
    };
    finish(digests, &origin, &config.sources, attempt, needs_changes)
}

fn finish(
    digests: Digests,
    origin: &Origin,
    rules: &SourceRules,
    attempt: &Attempt,
    needs_changes: bool,
) -> Result<Laid, Refusal> {
    remove_reports(&attempt.workspace())?;
    let changes = if needs_changes { Some(changes(origin, rules, &attempt.workspace())?) } else { None };
    Ok(Laid { digests, changes })
}

/// Removes reports that came with the workspace, because this gate's tests did not write them.
fn remove_reports(root: &Path) -> Result<(), Refusal> {
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

fn changes(origin: &Origin, rules: &SourceRules, root: &Path) -> Result<Result<ChangeSet, CannotJudge>, Refusal> {
    let head = tree::read(root, rules)?;
    Ok(match origin {
        Origin::Nothing => ChangeSet::between(Base::None, &head, rules),
        Origin::Folder(folder) => ChangeSet::between(Base::Tree(&tree::read(folder, rules)?), &head, rules),
        Origin::Diff(diff) => ChangeSet::between(Base::Diff(diff), &head, rules),
    })
}

impl Stored {
    /// With the hash of these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { hash: hex(&Sha256::digest(&bytes)), bytes }
    }
}
