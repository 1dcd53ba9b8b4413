//! `workspace:git`: a commit of a repository, and the commit to compare it with.

mod checkout;
mod refs;
mod standing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nofx_gates::snapshot::Snapshot;
use nofx_gates::{Attempt, WorkspaceError};
use serde_json::{Map, Value, json};
use shared::domain::base_origin::{Relation, Standing};
use shared::domain::fields::{self, Most, Names, Null};
use shared::domain::policy::TrustedBase;
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
    let bounds = Bounds { deadline, max_bytes: MAX_FETCHED_BYTES };
    let compares_tip = step.policy.gates.trusted_base == TrustedBase::Git;
    let made = make(&wanted, git, &attempt, bounds, compares_tip).await;
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
    standing: Option<Standing>,
    workspace: Packed,
    base: Option<(String, BaseKind, Packed)>,
    base_standing: Option<Standing>,
    changes: Changes,
}

/// `compares_tip`: whether a merge base is compared with the default branch as it is now, which takes one more tree.
async fn make(
    wanted: &Wanted,
    git: &Git,
    attempt: &Arc<Attempt>,
    bounds: Bounds,
    compares_tip: bool,
) -> Result<Made, RepositoryError> {
    let folder = attempt.temporary();
    let refs = Refs::find(wanted, git, &folder, bounds).await?;
    let base = refs.base(wanted, git, &folder, bounds).await?;
    let standing = refs.standing(&refs.commit, None);
    let mut base_standing = base.as_ref().and_then(|(id, kind)| refs.standing(id, Some(*kind)));
    let outdated = base_standing.as_mut().filter(|standing| compares_tip && standing.is == Relation::Outdated);
    let tip = outdated.as_ref().map(|standing| standing.tip.clone());
    let commits = [Some(&refs.commit), base.as_ref().map(|(id, _)| id), tip.as_ref()];
    let repository = checkout::fetch(git, &folder, &wanted.repository, commits.into_iter().flatten(), bounds).await?;

    let checkout = Checkout { git, repository: &repository, bounds };
    let after = checkout.snapshot(&refs.commit, attempt.workspace()).await?;
    let (mut old, mut old_snapshot) = (None, None);
    if let Some((id, kind)) = base {
        let before = checkout.snapshot(&id, attempt.base()).await?;
        old = Some((id, kind, pack(before.clone()).await?));
        old_snapshot = Some(before);
    }
    if let (Some(standing), Some(before)) = (outdated, &old_snapshot) {
        checkout.compare_with_tip(standing, before, &after, folder.join("tip")).await?;
    }
    let changes = Changes::between(old_snapshot.as_ref(), &after);
    Ok(Made { commit: refs.commit, standing, workspace: pack(after).await?, base: old, base_standing, changes })
}

/// Fetched commits.
struct Checkout<'a> {
    git: &'a Git,
    repository: &'a Path,
    bounds: Bounds,
}

impl Checkout<'_> {
    /// Writes the files of a commit into a folder, and checks that they are the commit's.
    async fn snapshot(&self, commit: &str, target: PathBuf) -> Result<Snapshot, RepositoryError> {
        let Self { git, repository, bounds } = *self;
        checkout::lay_out(git, repository, commit, &target, bounds).await?;
        let snapshot = blocking(move || tree::snapshot(&target)).await?;
        checkout::check_digest(git, repository, commit, &snapshot, bounds).await?;
        Ok(snapshot)
    }

    /// Whether a merge base can stand for the tip. If the tip cannot be read, nobody knows.
    async fn compare_with_tip(
        &self,
        standing: &mut Standing,
        base: &Snapshot,
        head: &Snapshot,
        target: PathBuf,
    ) -> Result<(), RepositoryError> {
        let why = match self.snapshot(&standing.tip, target).await {
            Ok(tip) => {
                let (base, head) = (base.clone(), head.clone());
                blocking(move || standing::outdated(&tip, &base, &head)).await?
            }
            Err(RepositoryError::Refused(why)) => Some(format!("its newest commit cannot be used: {why}")),
            Err(error) => return Err(error),
        };
        if why.is_none() {
            standing.is = Relation::MergeBase;
        }
        standing.why = why;
        Ok(())
    }
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
        // `nofx.artifact_origin` reads them.
        let facts = |commit: &str, standing: Option<Standing>| -> Map<String, Value> {
            let facts =
                [("repository", json!(wanted.repository)), ("commit", json!(commit)), ("standing", json!(standing))];
            facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        };
        let mut artifacts: Vec<NewArtifact> = Vec::new();
        let mut own = Map::new();
        own.insert("commit".to_owned(), json!(self.commit));
        if let Some((commit, kind, packed)) = self.base {
            let Stored { artifact, .. } =
                packed.store("base.tar.gz", facts(&commit, self.base_standing), Vec::new(), store).await?;
            own.insert("base".to_owned(), json!(artifact.id));
            own.insert("base_commit".to_owned(), json!(commit));
            own.insert("base_is".to_owned(), json!(kind.name()));
            artifacts.push(artifact);
        }
        let mut described = facts(&self.commit, self.standing);
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
