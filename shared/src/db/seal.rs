//! Seals of runs that have ended.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::{Json, Type};

use super::pool::Database;
use super::row;
use super::session::Session;
use crate::domain::{RunId, TenantId};
use crate::error::Error;

/// A run whose generation has ended and has no seal.
#[derive(Debug, Clone, Deserialize)]
pub struct Unsealed {
    pub tenant_id: TenantId,
    pub run_id: RunId,
}

/// Takes at most `limit` unsealed runs, newest first. Each is the caller's for two minutes, and longer after each try.
pub async fn seals_take(db: &Database, limit: i32) -> Result<Vec<Unsealed>, Error> {
    let taken: Option<Json<Vec<Unsealed>>> =
        db.query_value("select nofx.seals_take($1)", &[(&limit, Type::INT4)]).await?;
    Ok(taken.map(|json| json.0).unwrap_or_default())
}

/// Limits of what one seal covers.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SealLimits {
    /// Larger values are replaced by their digests, in bytes.
    pub inline: u32,
    /// Events, attempts, gates and artifacts, of each kind.
    pub rows: u32,
    /// Everything as JSON.
    pub bytes: u64,
}

/// What a run left.
#[derive(Debug, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Left {
    /// All sections of a proof but `documents` and `provenance`. Each artifact has its `uri`.
    Ended {
        content: Value,
    },
    TooLarge,
    /// There is no such run, it has not ended, or its generation has a seal.
    Open,
}

/// Reads what a seal of a run covers, from one snapshot.
pub async fn seal_read(db: &Database, run: &Unsealed, limits: SealLimits) -> Result<Left, Error> {
    #[derive(Debug, Serialize)]
    struct Call<'a> {
        tenant_id: &'a TenantId,
        run_id: RunId,
        #[serde(flatten)]
        limits: SealLimits,
    }
    let call = Call { tenant_id: &run.tenant_id, run_id: run.run_id, limits };
    db.transition("select nofx.seal_read($1)", &call).await
}

/// A seal that is stored.
#[derive(Debug, Clone, Serialize)]
pub struct NewSeal {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub generation: u64,
    /// sha256 of the file.
    pub digest: String,
    pub keyid: String,
    /// `s3://bucket/key`.
    pub uri: String,
    pub size_bytes: u64,
    /// The events that it covers.
    pub events: u64,
}

/// Records a seal. Returns false if the generation has one, or is not the run's any more.
pub async fn seal_record(db: &Database, seal: &NewSeal) -> Result<bool, Error> {
    #[derive(Deserialize)]
    #[serde(tag = "result", rename_all = "snake_case")]
    enum Answer {
        Recorded,
        Stale,
    }
    let answer = db.transition("select nofx.seal_record($1)", seal).await?;
    Ok(matches!(answer, Answer::Recorded))
}

/// Whether a run can be proved.
#[derive(Debug, Clone, Deserialize)]
pub struct SealState {
    /// Whether the run has ended.
    pub has_ended: bool,
    /// `s3://bucket/key` of the proof of its last generation. None while that has no seal.
    pub uri: Option<String>,
    pub generation: u32,
}

/// Whether a run can be proved. `None` if the tenant has no such run.
pub async fn seal_state(session: &Session, run: RunId) -> Result<Option<SealState>, Error> {
    let sql = "select r.finished_at is not null as has_ended, r.generation, s.uri
                 from nofx.run r
                 left join nofx.seal s on s.run_id = r.id and s.generation = r.generation and s.tenant_id = $1
                where r.tenant_id = $1 and r.id = $2";
    row::fetch(session, sql, &[(&run.0, Type::UUID)]).await
}
