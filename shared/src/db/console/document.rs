//! A document that a step stored, and what belongs to it.

use serde::Deserialize;
use tokio_postgres::types::Type;

use super::Artifact;
use super::gate::{GATE, GATE_JOINS, Gate};
use crate::db::pool::Database;
use crate::db::row;
use crate::domain::{ArtifactId, ArtifactRef, RunId, TenantId, Timestamp};
use crate::error::Error;

/// Documents of an attempt, and gates of a step, beside a document.
const BESIDE: usize = 20;

/// A document that a step stored, with what belongs to the same attempt.
#[derive(Debug, Clone, Deserialize)]
pub struct Document {
    pub artifact: ArtifactRef,
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub run_id: RunId,
    pub goal: String,
    pub step: Option<String>,
    pub attempt: Option<i64>,
    pub created_at: Timestamp,
    /// All documents of the attempt, this one too, oldest first.
    pub documents: Vec<Artifact>,
    /// Gates of the same step, newest first.
    pub gates: Vec<Gate>,
}

/// An artifact that a step of a run stored. `None` if the tenant has no such artifact.
pub async fn document_fetch(db: &Database, tenant: &TenantId, id: ArtifactId) -> Result<Option<Document>, Error> {
    let sql = format!(
        "select jsonb_build_object('id', o.id, 'uri', o.uri, 'hash', o.hash, 'size_bytes', o.size_bytes,
                                   'media_type', o.media_type) as artifact,
                left(o.type, 200) as type, left(o.name, 200) as name, o.run_id, left(r.goal, 300) as goal,
                s.name as step, o.attempt, o.created_at,
                coalesce((select json_agg(document) from (
                    select a.id, s.name as step, left(a.name, 200) as name, left(a.type, 200) as type, a.hash,
                           a.size_bytes, a.media_type
                      from nofx.artifact a
                     where a.tenant_id = $1 and a.step_id = o.step_id and a.attempt is not distinct from o.attempt
                     order by a.created_at, a.id limit {BESIDE}) document), '[]') as documents,
                coalesce((select json_agg(gate) from (
                    select {GATE} from nofx.gate g {GATE_JOINS}
                     where g.tenant_id = $1 and g.step_id = o.step_id
                     order by g.created_at desc, g.id desc limit {BESIDE}) gate), '[]') as gates
           from nofx.artifact o
           join nofx.run r on r.id = o.run_id
           left join nofx.step s on s.id = o.step_id
          where o.tenant_id = $1 and o.id = $2"
    );
    row::fetch(db, &sql, &[(&tenant.0, Type::TEXT), (&id.0, Type::UUID)]).await
}
