//! `workspace:git`: a commit of a repository, and the commit to compare it with.

mod checkout;
mod refs;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nofx_gates::snapshot::Snapshot;
use nofx_gates::{Attempt, WorkspaceError};
use serde_json::{Map, Value, json};
use shared::domain::fields::{self, Most, Names, Null};
use shared::domain::{ClaimedStep, NewArtifact, Outcome, Problem, StepError};
use shared::storage::StepStore;
use tokio::time::Instant;

use self::refs::{BaseKind, Refs};
use crate::git::{Bounds, Git, GitError};
use crate::infra_failure;
use crate::tree::{self, Changes, Packed, Stored};

const KNOWN: &[Names] = &[&["repository"], &["ref"], &["base"]];
const MAX_NAME_BYTES: usize = 300;
/// Maximum size of what is fetched: packed objects of two commits, or the commits of a history.
const MAX_FETCHED_BYTES: u64 = 512 * 1024 * 1024;
/// Time that is left for packing and storing.
const RESERVE: Duration = Duration::from_secs(15);

/// Accepted inputs.
#[derive(Debug)]
struct Wanted {
    repository: String,
    reference: String,
    base: Option<String>,
}

/// Why there is no workspace.
#[derive(Debug)]
enum RepositoryError {
    Git(GitError),
    /// The inputs name something that the repository does not have.
    Inputs(Problem),
    /// The commit has something that a workspace may not contain.
    Refused(String),
}

impl From<GitError> for RepositoryError {
    fn from(error: GitError) -> Self {
        Self::Git(error)
    }
}

impl From<std::io::Error> for RepositoryError {
    fn from(error: std::io::Error) -> Self {
        Self::Git(error.into())
    }
}

impl From<WorkspaceError> for RepositoryError {
    fn from(error: WorkspaceError) -> Self {
        match error {
            WorkspaceError::Io(error) => error.into(),
            other => Self::Refused(other.to_string()),
        }
    }
}

pub async fn run(work_dir: &Path, git: &Git, step: &ClaimedStep, store: &StepStore) -> Result<Outcome, Outcome> {
    let wanted =
        Wanted::parse(&step.inputs).map_err(|problems| Outcome::failed(StepError::invalid_inputs(problems)))?;
    let is_allowed = match git.protocol() {
        "https" => step.policy.gates.allows_repository(&wanted.repository),
        // Only tests read files.
        protocol => wanted.repository.starts_with(&format!("{protocol}://")),
    };
    if !is_allowed {
        let message = format!(
            "inputs.repository: the policy does not allow {:?}; it must be an https URL below one of the policy's \
             `gates.repositories`",
            wanted.repository
        );
        return Err(Outcome::failed(StepError::new("repository_denied", message)));
    }
    let attempt = Arc::new(Attempt::begin(work_dir).map_err(infra_failure)?);
    let deadline = Instant::now() + step.timeout.saturating_sub(RESERVE);
    let made = make(&wanted, git, &attempt, Bounds { deadline, max_bytes: MAX_FETCHED_BYTES }).await;
    let made = made.map_err(|error| failure(error, &wanted))?;
    made.store(&wanted, store).await
}

impl Wanted {
    fn parse(inputs: &Value) -> Result<Self, Vec<Problem>> {
        fields::read(inputs, "inputs", KNOWN, Null::Absent, |fields| {
            fields.require(&["repository", "ref"]);
            let repository = fields.filled("repository", Most::Bytes(MAX_NAME_BYTES)).map(str::to_owned);
            let mut name = |field| {
                fields.read(field, |value| {
                    let name = fields::filled(value, Most::Bytes(MAX_NAME_BYTES))?;
                    if refs::is_name(name) {
                        Ok(name.to_owned())
                    } else {
                        Err("must be a branch, a tag or a commit".into())
                    }
                })
            };
            let (reference, base) = (name("ref"), name("base"));
            Some(Self { repository: repository?, reference: reference?, base })
        })
    }
}

/// Two packed trees.
struct Made {
    commit: String,
    workspace: Packed,
    base: Option<(String, BaseKind, Packed)>,
    changes: Changes,
}

async fn make(wanted: &Wanted, git: &Git, attempt: &Arc<Attempt>, bounds: Bounds) -> Result<Made, RepositoryError> {
    let folder = attempt.temporary();
    let refs = Refs::find(wanted, git, &folder, bounds).await?;
    let base = refs.base(wanted, git, &folder, bounds).await?;
    let commits = [Some(&refs.commit), base.as_ref().map(|(id, _)| id)];
    let repository = checkout::fetch(git, &folder, &wanted.repository, commits.into_iter().flatten(), bounds).await?;

    checkout::lay_out(git, &repository, &refs.commit, &attempt.workspace(), bounds).await?;
    let new = Arc::clone(attempt);
    let after = blocking(move || tree::snapshot(&new.workspace())).await?;
    checkout::check_digest(git, &repository, &refs.commit, &after, bounds).await?;
    let (mut old, mut old_snapshot) = (None, None);
    if let Some((id, kind)) = base {
        checkout::lay_out(git, &repository, &id, &attempt.base(), bounds).await?;
        let folder = Arc::clone(attempt);
        let before = blocking(move || tree::snapshot(&folder.base())).await?;
        checkout::check_digest(git, &repository, &id, &before, bounds).await?;
        old = Some((id, kind, pack(before.clone()).await?));
        old_snapshot = Some(before);
    }
    let changes = Changes::between(old_snapshot.as_ref(), &after);
    Ok(Made { commit: refs.commit, workspace: pack(after).await?, base: old, changes })
}

async fn pack(snapshot: Snapshot) -> Result<Packed, RepositoryError> {
    blocking(move || Packed::new(&snapshot)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WorkspaceError> + Send + 'static,
) -> Result<T, RepositoryError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(std::io::Error::other)??)
}

impl Made {
    async fn store(self, wanted: &Wanted, store: &StepStore) -> Result<Outcome, Outcome> {
        let facts = |commit: &str| -> Map<String, Value> {
            let facts = [("repository", json!(wanted.repository)), ("commit", json!(commit))];
            facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        };
        let mut artifacts: Vec<NewArtifact> = Vec::new();
        let mut own = Map::new();
        own.insert("commit".to_owned(), json!(self.commit));
        if let Some((commit, kind, packed)) = self.base {
            let Stored { artifact, .. } = packed.store("base.tar.gz", facts(&commit), Vec::new(), store).await?;
            own.insert("base".to_owned(), json!(artifact.id));
            own.insert("base_commit".to_owned(), json!(commit));
            own.insert("base_is".to_owned(), json!(kind.name()));
            artifacts.push(artifact);
        }
        let mut described = facts(&self.commit);
        described.insert("ref".to_owned(), json!(wanted.reference));
        let stored = self.workspace.store("workspace.tar.gz", described, Vec::new(), store).await?;
        let mut outputs = stored.outputs(&self.changes);
        outputs.extend(own);
        artifacts.push(stored.artifact);
        Ok(Outcome { artifacts, ..Outcome::succeeded(outputs) })
    }
}

fn failure(error: RepositoryError, wanted: &Wanted) -> Outcome {
    let url = &wanted.repository;
    let failed = |code: &str, message: String| Outcome::failed(StepError::new(code, message));
    match error {
        RepositoryError::Inputs(problem) => Outcome::failed(StepError::invalid_inputs(vec![problem])),
        RepositoryError::Refused(message) => failed("archive_refused", format!("{url}: {message}")),
        RepositoryError::Git(GitError::Missing) => {
            failed("toolchain_missing", "this machine has no git; use workspace:write, or install git".to_owned())
        }
        RepositoryError::Git(GitError::TooLarge) => failed(
            "repository_too_large",
            format!(
                "{url}: the fetch has more than {MAX_FETCHED_BYTES} bytes; name a `base` or use a smaller repository"
            ),
        ),
        RepositoryError::Git(GitError::TimedOut) => Outcome::retryable(StepError::new(
            "repository_unavailable",
            format!("{url}: the fetch did not end in time; try again, with a longer `timeout_s` if it is large"),
        )),
        RepositoryError::Git(GitError::Failed(why)) => {
            let error = StepError::new("repository_unavailable", format!("{url} cannot be fetched: {why}"));
            if is_final(&why) { Outcome::failed(error) } else { Outcome::retryable(error) }
        }
        RepositoryError::Git(GitError::Io(error)) => infra_failure(error),
    }
}

/// Whether another try would get the same answer: the repository does not exist, or is not public.
fn is_final(why: &str) -> bool {
    [
        "could not read Username",
        "Authentication failed",
        "not found",
        "does not exist",
        "not appear to be a git",
        "error: 403",
    ]
    .iter()
    .any(|text| why.contains(text))
}

#[cfg(test)]
#[path = "repository_tests.rs"]
mod tests;
