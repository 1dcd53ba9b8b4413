//! Deletes the bytes of an artifact, or asks for a copy of an archived one, for a person. The sweeper does it.

use crate::db::artifact_storage::{self, Deletion, RestoreAsked};
use crate::db::{Session, artifact};
use crate::domain::artifact_storage::RestoreTier;
use crate::domain::{ArtifactId, Policy, Problem, RunId};
use crate::error::{Code, Error};
use crate::storage::archived;
use crate::view::{ArtifactStorage, StorageChange};

/// Runs that a message names.
const NAMED: usize = 3;

/// What became of a request.
#[derive(Debug)]
pub struct Changed {
    pub change: StorageChange,
    /// False if it was so already.
    pub is_new: bool,
}

/// Deletes the bytes of an artifact. What is recorded about it stays.
pub async fn delete_artifact(session: &Session, id: ArtifactId, actor: &str, reason: &str) -> Result<Changed, Error> {
    let change = |storage, is_new| Changed { change: StorageChange { id, storage }, is_new };
    match artifact_storage::artifact_delete(session, id, actor, reason).await? {
        Deletion::Deleted { storage } => Ok(change(storage, true)),
        Deletion::Unchanged { storage } => Ok(change(storage, false)),
        Deletion::InUse { runs } => Err(Error::Conflict(Code::ArtifactInUse, in_use(&runs))),
        Deletion::NotFound => Err(no_artifact(id)),
    }
}

/// Asks for a copy that can be read for some days.
pub async fn restore_artifact(
    session: &Session,
    id: ArtifactId,
    actor: &str,
    days: u32,
    tier: RestoreTier,
) -> Result<Changed, Error> {
    let change = |storage, is_new| Changed { change: StorageChange { id, storage }, is_new };
    match artifact_storage::artifact_restore(session, id, actor, days, tier).await? {
        RestoreAsked::Asked { storage } => Ok(change(storage, true)),
        RestoreAsked::Unchanged { storage: Some(storage) } => Ok(change(storage, false)),
        RestoreAsked::Unchanged { storage: None } => {
            let hot = artifact::artifact_fetch(session, id).await?.ok_or_else(|| no_artifact(id))?;
            Ok(change(hot.storage, false))
        }
        RestoreAsked::Ongoing { storage } => Err(Error::Conflict(Code::ArtifactArchived, ongoing(id, &storage))),
        RestoreAsked::Deleted { storage } => Err(deleted(id, &storage)),
        RestoreAsked::NotFound => Err(no_artifact(id)),
    }
}

/// Refuses to hand out bytes that cannot be read.
pub fn check_readable(id: ArtifactId, storage: &ArtifactStorage) -> Result<(), Error> {
    match storage.state {
        state if state.is_gone() => Err(deleted(id, storage)),
        state if state.is_readable() => Ok(()),
        _ => match &storage.restore {
            Some(restore) => Err(Error::Conflict(
                Code::ArtifactArchived,
                format!("the artifact {id} is being restored; it can be read by {}", restore.expected_by.0),
            )),
            None => Err(archived(id)),
        },
    }
}

/// Refuses a policy that this deployment cannot carry out. `name` is the path of the document.
pub fn check_policy(policy: &Policy, can_archive: bool, name: &str) -> Result<(), Problem> {
    if policy.artifacts.hot_days.is_some() && !can_archive {
        let message =
            "this deployment keeps artifacts at another S3 endpoint, which has no archive; leave hot_days out";
        let dot = if name.is_empty() { "" } else { "." };
        return Err(Problem::new(format!("{name}{dot}artifacts.hot_days"), message));
    }
    Ok(())
}

/// Why the bytes are not there.
pub(super) fn deleted(id: ArtifactId, storage: &ArtifactStorage) -> Error {
    let by = storage.actor.as_deref().unwrap_or("somebody");
    let day = storage.since.0.get(..10).unwrap_or_default();
    let why = storage.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    Error::Conflict(Code::ArtifactDeleted, format!("the artifact {id} was deleted on {day} by {by}{why}"))
}

/// Why other days or another tier cannot be asked for now.
fn ongoing(id: ArtifactId, storage: &ArtifactStorage) -> String {
    let asked = storage.restore.as_ref().map_or_else(String::new, |restore| {
        format!(
            " for {} days with the tier {}; it can be read by {}",
            restore.days,
            restore.tier.as_str(),
            restore.expected_by.0
        )
    });
    format!("the artifact {id} is being restored{asked}; ask for more days then")
}

fn in_use(runs: &[RunId]) -> String {
    let named: Vec<String> = runs.iter().take(NAMED).map(ToString::to_string).collect();
    let more = runs.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("a run that has not ended uses the artifact: {}{more}; wait for its end, or cancel it", named.join(", "))
}

fn no_artifact(id: ArtifactId) -> Error {
    Error::NotFound(format!("artifact {id}"))
}
