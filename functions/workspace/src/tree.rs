//! Packs a folder as an archive, and describes it.

use std::path::Path;

use nofx_gates::archive;
use nofx_gates::snapshot::{Snapshot, TreeDigest};
use nofx_gates::{Limits, WorkspaceError};
use serde_json::{Map, Value, json};
use shared::domain::{ArtifactId, NewArtifact, Outcome};
use shared::storage::{ArtifactMeta, StepStore};

use crate::fetch;

/// How many changed paths the outputs list.
const LISTED: usize = 100;

/// A packed tree.
#[derive(Debug)]
pub struct Packed {
    pub archive: Vec<u8>,
    pub digest: TreeDigest,
    pub files: usize,
    /// Of the files.
    pub bytes: u64,
}

/// The paths that differ between two trees, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    paths: Vec<String>,
}

impl Packed {
    pub fn new(snapshot: &Snapshot) -> Result<Self, WorkspaceError> {
        Ok(Self {
            archive: archive::pack(&archive::sources(snapshot), Limits::default())?,
            digest: snapshot.digest(),
            files: snapshot.files().len(),
            bytes: snapshot.files().values().map(|entry| entry.size).sum(),
        })
    }

    /// Stores the archive. `facts` join its metadata.
    pub async fn store(
        self,
        name: &str,
        facts: Map<String, Value>,
        made_from: Vec<ArtifactId>,
        store: &StepStore,
    ) -> Result<Stored, Outcome> {
        let mut metadata = facts;
        metadata.insert("tree".to_owned(), json!(self.digest));
        metadata.insert("files".to_owned(), json!(self.files));
        metadata.insert("unpacked_bytes".to_owned(), json!(self.bytes));
        let describe = ArtifactMeta {
            kind: "workspace",
            media_type: "application/gzip",
            metadata: Value::Object(metadata),
            made_from,
        };
        let artifact = store.put(name, describe, self.archive).await.map_err(|error| fetch::unavailable(&error))?;
        Ok(Stored { artifact, digest: self.digest, files: self.files })
    }
}

/// A stored tree.
#[derive(Debug)]
pub struct Stored {
    pub artifact: NewArtifact,
    digest: TreeDigest,
    files: usize,
}

impl Stored {
    /// The outputs that every tool has.
    pub fn outputs(&self, changes: &Changes) -> Map<String, Value> {
        let mut outputs = Map::new();
        outputs.insert("workspace".to_owned(), json!(self.artifact.id));
        outputs.insert("tree".to_owned(), json!(self.digest));
        outputs.insert("files".to_owned(), json!(self.files));
        outputs.insert("size_bytes".to_owned(), json!(self.artifact.size_bytes));
        outputs.insert("sha256".to_owned(), json!(self.artifact.hash));
        outputs.insert("changed".to_owned(), json!(changes.paths.iter().take(LISTED).collect::<Vec<_>>()));
        outputs.insert("changed_count".to_owned(), json!(changes.paths.len()));
        outputs
    }
}

impl Changes {
    /// Without `before`, every file counts as changed.
    pub fn between(before: Option<&Snapshot>, after: &Snapshot) -> Self {
        let old = before.map(Snapshot::files);
        let new = after.files();
        let mut paths: Vec<String> = new
            .iter()
            .filter(|(path, entry)| old.is_none_or(|old| old.get(*path) != Some(entry)))
            .map(|(path, _)| path.clone())
            .collect();
        paths.extend(
            old.into_iter().flatten().filter(|(path, _)| !new.contains_key(*path)).map(|(path, _)| path.clone()),
        );
        paths.sort_unstable();
        Self { paths }
    }

    #[cfg(test)]
    pub fn of<const COUNT: usize>(paths: [&str; COUNT]) -> Self {
        Self { paths: paths.map(str::to_owned).into() }
    }
}

/// Lists and hashes a folder.
pub fn snapshot(root: &Path) -> Result<Snapshot, WorkspaceError> {
    Snapshot::take(root).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => WorkspaceError::Archive(error.to_string()),
        _ => error.into(),
    })
}
