//! A document that a step stored, and what belongs to it.

use serde::Deserialize;
use tokio_postgres::types::Type;

use super::Artifact;
use crate::db::row;
use crate::db::session::Session;
use crate::domain::{ArtifactId, ArtifactRef, RunId};
use crate::error::Error;

/// Documents of an attempt beside a document.
const BESIDE: usize = 20;

/// A document that a step stored, with what belongs to the same attempt.
#[derive(Debug, Clone, Deserialize)]
pub struct Document {
    pub artifact: ArtifactRef,
    #[serde(rename = "type")]
    pub kind: String,
    pub run_id: RunId,
    /// Place of its step in the plan.
    pub ordinal: Option<i64>,
    pub attempt: Option<i64>,
    /// All documents of the attempt, this one too, oldest first.
    pub documents: Vec<Artifact>,
}

/// An artifact that a step of a run stored. `None` if the tenant has no such artifact.
pub async fn document_fetch(session: &Session, id: ArtifactId) -> Result<Option<Document>, Error> {
    let sql = format!(
        "select jsonb_build_object('id', o.id, 'uri', o.uri, 'hash', o.hash, 'size_bytes', o.size_bytes,
                                   'media_type', o.media_type) as artifact,
                left(o.type, 200) as type, o.run_id, s.ordinal, o.attempt,
                coalesce((select json_agg(document) from (
                    select a.id, s.name as step, left(a.name, 200) as name, left(a.type, 200) as type, a.hash,
                           a.size_bytes, a.media_type
                      from nofx.artifact a
                     where a.tenant_id = $1 and a.step_id = o.step_id and a.attempt is not distinct from o.attempt
                     order by a.created_at, a.id limit {BESIDE}) document), '[]') as documents
           from nofx.artifact o
           left join nofx.step s on s.id = o.step_id
          where o.tenant_id = $1 and o.id = $2 and o.run_id is not null"
    );
    row::fetch(session, &sql, &[(&id.0, Type::UUID)]).await
}
