//! `workspace:write`: a workspace, changed by a patch, by files and by deletions, in this order.
//!
//! The patch, or what a model made (`from`), comes first, because it was made from the workspace as it is. Files replace what it
//! leaves. Deletions come last, so that they can remove what a patch renamed or a folder that is not wanted.

use std::path::Path;
use std::sync::Arc;

use nofx_gates::edit::{self, EditError};
use nofx_gates::patch::{self, PatchError};
use nofx_gates::{Attempt, CancelOnDrop, InfraError, Limits, MAX_PACKED_BYTES, WorkspaceError, unpack};
use serde_json::{Map, json};
use shared::domain::{ArtifactId, ClaimedStep, Outcome, Problem, StepError};
use shared::storage::StepStore;

use crate::inputs::{File, Source, WriteInputs};
use crate::made::{Made, MadeError};
use crate::tree::{self, Changes, Packed};
use crate::{fetch, infra_failure, markdown};

/// Maximum size of one file or patch, and of all of them.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What to do, with the contents of all artifacts.
#[derive(Default)]
struct Edits {
    workspace: Option<Vec<u8>>,
    from: Option<Made>,
    patch: Option<Vec<u8>>,
    files: Vec<(File, Vec<u8>)>,
    delete: Vec<(String, String)>,
}

/// Why there is no new workspace.
enum WriteError {
    Inputs(Vec<Problem>),
    /// What a model made does not fit the workspace.
    Made(Vec<String>),
    Workspace(WorkspaceError),
}

impl From<MadeError> for WriteError {
    fn from(error: MadeError) -> Self {
        match error {
            MadeError::Refused(problems) => Self::Made(problems),
            MadeError::Workspace(error) => Self::Workspace(error),
        }
    }
}

impl From<WorkspaceError> for WriteError {
    fn from(error: WorkspaceError) -> Self {
        Self::Workspace(error)
    }
}

impl From<std::io::Error> for WriteError {
    fn from(error: std::io::Error) -> Self {
        Self::Workspace(error.into())
    }
}

pub async fn run(work_dir: &Path, step: &ClaimedStep, store: &StepStore) -> Result<Outcome, Outcome> {
    let invalid = |problems| Outcome::failed(StepError::invalid_inputs(problems));
    let inputs = WriteInputs::parse(&step.inputs).map_err(invalid)?;
    let base = step.workspace.as_ref().map(|workspace| &workspace.archive);
    let mut made_from: Vec<ArtifactId> = base.map(|base| base.id).into_iter().chain(inputs.artifacts()).collect();
    made_from.sort_unstable();
    made_from.dedup();

    let edits = fetch_all(inputs, step, store).await?;
    let attempt = Arc::new(Attempt::begin(work_dir).map_err(infra_failure)?);
    // When the step's time is over, the work on the other thread stops.
    let _cancel_on_drop = CancelOnDrop(Arc::clone(&attempt));
    let edited = tokio::task::spawn_blocking(move || apply(&edits, &attempt)).await;
    let (packed, changes) = match edited.map_err(|error| infra_failure(InfraError::task_failed(error)))? {
        Ok(done) => done,
        Err(WriteError::Inputs(problems)) => return Err(invalid(problems)),
        Err(WriteError::Made(problems)) => return Err(changes_refused(problems)),
        Err(WriteError::Workspace(WorkspaceError::Io(error))) => return Err(infra_failure(error)),
        Err(WriteError::Workspace(error)) => {
            return Err(Outcome::failed(StepError::new("archive_refused", format!("inputs.workspace: {error}"))));
        }
    };

    let facts: Map<_, _> = base.map(|base| ("base".to_owned(), json!(base.id))).into_iter().collect();
    let stored = packed.store("workspace.tar.gz", facts.clone(), made_from, store).await?;
    let mut outputs = stored.outputs(&changes);
    outputs.extend(facts);
    Ok(Outcome { artifacts: vec![stored.artifact], ..Outcome::succeeded(outputs) })
}

/// Reads the workspace and every artifact, and reports each that cannot be used.
async fn fetch_all(inputs: WriteInputs, step: &ClaimedStep, store: &StepStore) -> Result<Edits, Outcome> {
    let mut problems = Vec::new();
    let mut left = MAX_BYTES;
    let mut edits = Edits { delete: inputs.delete, ..Edits::default() };
    if let Some(workspace) = &step.workspace {
        edits.workspace = Some(fetch::archive(&workspace.archive, store, MAX_PACKED_BYTES).await?);
    }
    if let Some(id) = inputs.from {
        match made(id, &mut left, step, store).await? {
            Ok(made) => edits.from = Some(made),
            Err(message) => problems.push(Problem::new("inputs.from", message)),
        }
    }
    if let Some(source) = inputs.patch {
        match content(&source, None, &mut left, step, store).await? {
            Ok(patch) => edits.patch = Some(patch),
            Err(message) => problems.push(Problem::new("inputs.patch", message)),
        }
    }
    for file in inputs.files {
        match content(&file.source, Some(&file.path), &mut left, step, store).await? {
            Ok(bytes) => edits.files.push((file, bytes)),
            Err(message) => problems.push(Problem::new(file.place, message)),
        }
    }
    if problems.is_empty() { Ok(edits) } else { Err(Outcome::failed(StepError::invalid_inputs(problems))) }
}

async fn made(
    id: ArtifactId,
    left: &mut u64,
    step: &ClaimedStep,
    store: &StepStore,
) -> Result<Result<Made, String>, Outcome> {
    let Some(artifact) = step.artifacts.get(&id) else { return Ok(Err(format!("no artifact has the id {id}"))) };
    Ok(match fetch::input(artifact, store, MAX_FILE_BYTES.min(*left)).await? {
        Ok(bytes) => {
            *left = left.saturating_sub(bytes.len() as u64);
            Made::read(bytes, &artifact.media_type)
        }
        Err(message) => Err(message),
    })
}

/// Of what a model made, and a plan's author cannot mend.
fn changes_refused(mut problems: Vec<String>) -> Outcome {
    let first = problems.iter().take(10).map(String::as_str).collect::<Vec<_>>();
    let message = format!("What inputs.from says does not fit the workspace. {}.", first.join("; "));
    problems.truncate(100);
    let error = StepError::new("changes_refused", message).with_details(json!({ "problems": problems }));
    Outcome::failed(error)
}

async fn content(
    source: &Source,
    path: Option<&str>,
    left: &mut u64,
    step: &ClaimedStep,
    store: &StepStore,
) -> Result<Result<Vec<u8>, String>, Outcome> {
    let (bytes, media_type) = match source {
        Source::Text(text) => (text.clone().into_bytes(), None),
        Source::Bytes(bytes) => return Ok(Ok(bytes.clone())),
        Source::Artifact(id) => {
            let Some(artifact) = step.artifacts.get(id) else {
                return Ok(Err(format!("no artifact has the id {id}")));
            };
            match fetch::input(artifact, store, MAX_FILE_BYTES.min(*left)).await? {
                Ok(bytes) => (bytes, Some(artifact.media_type.as_str())),
                Err(message) => return Ok(Err(message)),
            }
        }
    };
    *left = left.saturating_sub(bytes.len() as u64);
    Ok(markdown::content(bytes, media_type, path))
}

/// Changes the workspace on the disk, and packs it.
fn apply(edits: &Edits, attempt: &Attempt) -> Result<(Packed, Changes), WriteError> {
    let root = attempt.workspace();
    let before = match &edits.workspace {
        Some(archive) => {
            unpack(archive, &root, Limits::default(), &|| attempt.check_cancelled())?;
            Some(tree::snapshot(&root)?)
        }
        None => None,
    };
    change(edits, &root, attempt)?;
    let after = tree::snapshot(&root)?;
    // The workspace was acceptable, so the changes made it unacceptable. A model that was asked again can choose other names.
    let packed = Packed::new(&after).map_err(|error| match error {
        WorkspaceError::Archive(message) if edits.from.is_some() => WriteError::Made(vec![message]),
        WorkspaceError::Archive(message) => WriteError::Inputs(vec![Problem::new("inputs", message)]),
        other => other.into(),
    })?;
    Ok((packed, Changes::between(before.as_ref(), &after)))
}

/// Applies what a model made or the patch, then the files, then the deletions. A patch that does not apply hides what would follow, so its
/// problems are reported alone.
fn change(edits: &Edits, root: &Path, attempt: &Attempt) -> Result<(), WriteError> {
    if let Some(made) = &edits.from {
        made.apply(root, attempt)?;
    }
    if let Some(patch) = &edits.patch {
        patch::apply(root, patch).map_err(|error| match error {
            PatchError::Refused(problems) => {
                WriteError::Inputs(problems.into_iter().map(|text| Problem::new("inputs.patch", text)).collect())
            }
            PatchError::Io(error) => error.into(),
        })?;
    }
    let mut problems = Vec::new();
    for (file, bytes) in &edits.files {
        attempt.check_cancelled()?;
        note(&file.place, edit::write_file(root, &file.path, bytes, file.executable), &mut problems)?;
    }
    for (place, path) in &edits.delete {
        attempt.check_cancelled()?;
        note(place, edit::delete(root, path), &mut problems)?;
    }
    if problems.is_empty() { Ok(()) } else { Err(WriteError::Inputs(problems)) }
}

fn note(place: &str, result: Result<(), EditError>, problems: &mut Vec<Problem>) -> Result<(), WriteError> {
    match result {
        Ok(()) => {}
        Err(EditError::Refused(message)) => problems.push(Problem::new(place, message)),
        Err(EditError::Io(error)) => return Err(error.into()),
    }
    Ok(())
}
