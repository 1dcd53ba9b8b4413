//! What a model made of a workspace: a set of files or a patch, which a step takes as `from`.

use std::path::Path;

use nofx_gates::edit::{self, EditError};
use nofx_gates::file_set::{FileSet, SetProblem};
use nofx_gates::patch::{self, PatchError};
use nofx_gates::{Attempt, WorkspaceError};

/// The content of `from`.
#[derive(Debug, PartialEq, Eq)]
pub enum Made {
    Files(FileSet),
    Patch(Vec<u8>),
}

/// Why it is not in the workspace.
#[derive(Debug)]
pub enum MadeError {
    /// It does not fit the workspace. Each text names the file, and of a patch the line of its hunk.
    Refused(Vec<String>),
    Workspace(WorkspaceError),
}

impl From<WorkspaceError> for MadeError {
    fn from(error: WorkspaceError) -> Self {
        Self::Workspace(error)
    }
}

impl Made {
    /// Reads an artifact. The error is for the plan's author.
    pub fn read(bytes: Vec<u8>, media_type: &str) -> Result<Self, String> {
        match media_type.split(';').next().unwrap_or_default().trim() {
            "application/json" => FileSet::read(&bytes).map(Self::Files).map_err(|problem| {
                let SetProblem { place, message, .. } = problem;
                if place.is_empty() { message } else { format!("{place}: {message}") }
            }),
            "text/x-diff" => {
                patch::parse_unique(&bytes).map_err(|problem| patch::without_text(&problem))?;
                Ok(Self::Patch(bytes))
            }
            other => Err(format!(
                "has the type {other}, and must be a set of files (application/json) or a patch (text/x-diff), which codegen \
                 makes with the output files or patch"
            )),
        }
    }

    /// Changes the workspace. What a set deletes goes first, so that a folder can take the place of a file.
    pub fn apply(&self, root: &Path, attempt: &Attempt) -> Result<(), MadeError> {
        let set = match self {
            Self::Files(set) => set,
            Self::Patch(text) => {
                return patch::apply_private(root, text).map_err(|error| match error {
                    PatchError::Refused(problems) => MadeError::Refused(problems),
                    PatchError::Io(error) => MadeError::Workspace(error.into()),
                });
            }
        };
        let mut problems = Vec::new();
        let mut note = |place: String, result: Result<(), EditError>| match result {
            Ok(()) => Ok(()),
            Err(EditError::Refused(message)) => {
                problems.push(format!("{place}: {message}"));
                Ok(())
            }
            Err(EditError::Io(error)) => Err(WorkspaceError::from(error)),
        };
        for (at, path) in set.deleted.iter().enumerate() {
            attempt.check_cancelled().map_err(WorkspaceError::from)?;
            note(format!("deleted[{at}]"), edit::delete_file(root, path))?;
        }
        for (at, file) in set.files.iter().enumerate() {
            attempt.check_cancelled().map_err(WorkspaceError::from)?;
            note(format!("files[{at}]"), edit::write_file(root, &file.path, file.content.as_bytes(), None))?;
        }
        if problems.is_empty() { Ok(()) } else { Err(MadeError::Refused(problems)) }
    }
}
