//! Where the bytes of artifacts are: what people and policies want, and what the sweeper did about it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::{Json, Type};

use super::pool::Database;
use super::session::Session;
use crate::domain::artifact_storage::{RestoreTier, Settled, StorageState, Wanted};
use crate::domain::{ArtifactId, RunId, TenantId};
use crate::error::Error;
use crate::view::ArtifactStorage;

/// The storage of the artifact `a` as JSON. One without a row is hot since it was made. `s` is its row.
pub(super) const STORAGE: &str =
    "coalesce(nofx.artifact_storage_json(s), jsonb_build_object('state', 'hot', 'since', a.created_at))";

/// An artifact whose bytes are deleted, or will be within minutes.
#[derive(Debug, Deserialize)]
pub struct GoneArtifact {
    pub artifact_id: ArtifactId,
    pub storage: ArtifactStorage,
}

/// Result of a deletion by a person.
#[derive(Debug, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Deletion {
    Deleted {
        storage: ArtifactStorage,
    },
    /// It was deleted before.
    Unchanged {
        storage: ArtifactStorage,
    },
    /// These runs have not ended and use it.
    InUse {
        runs: Vec<RunId>,
    },
    NotFound,
}

/// Deletes the bytes of an artifact. Safe to repeat.
pub async fn artifact_delete(session: &Session, id: ArtifactId, actor: &str, reason: &str) -> Result<Deletion, Error> {
    #[derive(Debug, Serialize)]
    struct Call<'a> {
        id: ArtifactId,
        actor: &'a str,
        reason: &'a str,
    }
    session.transition("select nofx.artifact_delete($1)", &Call { id, actor, reason }).await
}

/// Result of asking for a restore.
#[derive(Debug, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum RestoreAsked {
    Asked {
        storage: ArtifactStorage,
    },
    /// It is asked already, or can be read for long enough. Null if the artifact is hot.
    Unchanged {
        storage: Option<ArtifactStorage>,
    },
    /// The archive makes a copy for another number of days or with another tier.
    Ongoing {
        storage: ArtifactStorage,
    },
    Deleted {
        storage: ArtifactStorage,
    },
    NotFound,
}

/// Asks for a copy of an archived artifact that can be read for some days. Safe to repeat.
pub async fn artifact_restore(
    session: &Session,
    id: ArtifactId,
    actor: &str,
    days: u32,
    tier: RestoreTier,
) -> Result<RestoreAsked, Error> {
    #[derive(Debug, Serialize)]
    struct Call<'a> {
        id: ArtifactId,
        actor: &'a str,
        days: u32,
        tier: RestoreTier,
    }
    session.transition("select nofx.artifact_restore($1)", &Call { id, actor, days, tier }).await
}

/// What a look at some artifacts of a tenant found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Planned {
    pub tenant_id: TenantId,
    /// Artifacts that its policy wants archived, and deleted.
    pub archived: u64,
    pub deleted: u64,
    /// The version of its policy, if this release cannot read what it says about artifacts. Then nothing is wanted.
    pub unreadable: Option<u32>,
}

/// Tenants whose turn it is to be looked at. A tenant whose turn fails comes last the next time.
pub async fn artifact_turns(db: &Database, limit: i32) -> Result<Vec<TenantId>, Error> {
    tenants(db, "select nofx.artifact_turns($1)", limit).await
}

/// Tenants with artifacts that are due, in any order.
pub async fn artifacts_due(db: &Database, limit: i32) -> Result<Vec<TenantId>, Error> {
    tenants(db, "select nofx.artifacts_due($1)", limit).await
}

async fn tenants(db: &Database, sql: &str, limit: i32) -> Result<Vec<TenantId>, Error> {
    let found: Option<Json<Vec<TenantId>>> = db.query_value(sql, &[(&limit, Type::INT4)]).await?;
    Ok(found.map(|json| json.0).unwrap_or_default())
}

/// Looks at the next artifacts of a tenant. `None` if another sweep does, or its policy says nothing about artifacts.
pub async fn artifacts_plan(
    db: &Database,
    tenant: &TenantId,
    limit: u32,
    can_archive: bool,
) -> Result<Option<Planned>, Error> {
    #[derive(Debug, Serialize)]
    struct Call<'a> {
        tenant_id: &'a TenantId,
        limit: u32,
        can_archive: bool,
    }
    let call = Call { tenant_id: tenant, limit, can_archive };
    let answer: Value = db.transition("select nofx.artifacts_plan($1)", &call).await?;
    if answer["result"] == "none" {
        return Ok(None);
    }
    serde_json::from_value(answer).map(Some).map_err(|error| Error::internal("read a plan of artifacts", error))
}

/// An artifact at which the sweeper has to look.
#[derive(Debug, Clone, Deserialize)]
pub struct Taken {
    pub tenant_id: TenantId,
    pub artifact_id: ArtifactId,
    /// `s3://bucket/key`.
    pub uri: String,
    /// The row's, for the record.
    pub version: u32,
    state: StorageState,
    since_s: i64,
    asked_days: Option<u32>,
    pub tier: Option<RestoreTier>,
    restored_until_s: Option<i64>,
    writable_until_s: Option<i64>,
    /// Another artifact has the same object and keeps it.
    pub is_shared: bool,
}

impl Taken {
    pub fn wanted(&self) -> Wanted {
        let Self { state, since_s, asked_days, restored_until_s, writable_until_s, .. } = *self;
        Wanted { state, since_s, asked_days, restored_until_s, writable_until_s }
    }
}

/// Takes at most `limit` artifacts of a tenant that are due. Each is the caller's for two minutes, and longer after each try.
pub async fn artifacts_take(db: &Database, tenant: &TenantId, limit: u32) -> Result<Vec<Taken>, Error> {
    #[derive(Debug, Serialize)]
    struct Call<'a> {
        tenant_id: &'a TenantId,
        limit: u32,
    }
    db.transition("select nofx.artifacts_take($1)", &Call { tenant_id: tenant, limit }).await
}

#[derive(Debug, Serialize)]
struct Record<'a> {
    tenant_id: &'a TenantId,
    artifact_id: ArtifactId,
    version: u32,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum What<'a> {
    Settled { state: StorageState, restored_until_s: Option<i64>, again_s: Option<u64>, problem: Option<&'a str> },
    Failed { failed: &'a str },
}

/// Records what follows for a taken artifact. Returns false if somebody wants something else since.
pub async fn artifact_record(db: &Database, taken: &Taken, settled: &Settled) -> Result<bool, Error> {
    let Settled { state, restored_until_s, again_in, problem } = *settled;
    let again_s = again_in.map(|time| time.as_secs());
    record(db, taken, What::Settled { state, restored_until_s, again_s, problem }).await
}

/// Records that a taken artifact could not be looked at. The next try follows later.
pub async fn artifact_failed(db: &Database, taken: &Taken, why: &str) -> Result<bool, Error> {
    record(db, taken, What::Failed { failed: why }).await
}

async fn record(db: &Database, taken: &Taken, what: What<'_>) -> Result<bool, Error> {
    #[derive(Deserialize)]
    #[serde(tag = "result", rename_all = "snake_case")]
    enum Answer {
        Recorded,
        Stale,
    }
    let Taken { tenant_id, artifact_id, version, .. } = taken;
    let call = Record { tenant_id, artifact_id: *artifact_id, version: *version, what };
    let answer = db.transition("select nofx.artifact_record($1)", &call).await?;
    Ok(matches!(answer, Answer::Recorded))
}
