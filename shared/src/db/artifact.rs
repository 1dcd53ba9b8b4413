//! Artifacts: rows of uploads, reads, lineage.

use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};

use super::pool::Database;
use crate::domain::{ArtifactId, NewArtifact, RunId, TenantId};
use crate::error::Error;

/// Records an upload that belongs to no run yet. Safe to repeat.
pub async fn artifact_insert_upload(db: &Database, tenant: &TenantId, artifact: &NewArtifact) -> Result<(), Error> {
    let sql = "insert into nofx.artifact (id, tenant_id, name, type, uri, hash, size_bytes, media_type)
               values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (id) do nothing";
    let size_bytes = i64::try_from(artifact.size_bytes).unwrap_or(i64::MAX);
    let params: [(&(dyn ToSql + Sync), Type); 8] = [
        (&artifact.id.0, Type::UUID),
        (&tenant.0, Type::TEXT),
        (&artifact.name, Type::TEXT),
        (&artifact.kind, Type::TEXT),
        (&artifact.uri, Type::TEXT),
        (&artifact.hash, Type::TEXT),
        (&size_bytes, Type::INT8),
        (&artifact.media_type, Type::TEXT),
    ];
    db.query(sql, &params).await?;
    Ok(())
}

/// An artifact's row as JSON.
pub async fn artifact_fetch(db: &Database, tenant: &TenantId, id: ArtifactId) -> Result<Option<Value>, Error> {
    let sql = "select to_jsonb(a) from nofx.artifact a where a.tenant_id = $1 and a.id = $2";
    db.query_value(sql, &[(&tenant.0, Type::TEXT), (&id.0, Type::UUID)]).await
}

/// Artifacts of a run and the edges between them: `{nodes, edges: [{from, to}]}`. The run's workspace artifacts are nodes
/// too.
pub async fn run_lineage(db: &Database, tenant: &TenantId, run: RunId) -> Result<Option<Value>, Error> {
    let sql = "with recursive made as (
                   select a.id from nofx.artifact a where a.tenant_id = $1 and a.run_id = $2
                   union
                   select e.parent_id from made m join nofx.artifact_edge e on e.child_id = m.id
               ), given as (
                   select (w.value ->> 'id')::uuid as id
                     from nofx.run r cross join jsonb_each(coalesce(r.workspace, '{}')) w
                    where r.tenant_id = $1 and r.id = $2
               )
               select jsonb_build_object(
                   'run_id', r.id,
                   'nodes', coalesce((
                       select jsonb_agg(jsonb_build_object('id', a.id, 'run_id', a.run_id, 'step_id', a.step_id,
                                  'step', s.name, 'attempt', a.attempt, 'name', a.name, 'type', a.type, 'hash', a.hash)
                                  order by a.created_at, a.id)
                         from nofx.artifact a
                         left join nofx.step s on s.id = a.step_id
                        where a.tenant_id = $1
                          and a.id in (select m.id from made m union select g.id from given g)), '[]'),
                   'edges', coalesce((
                       select jsonb_agg(jsonb_build_object('from', e.parent_id, 'to', e.child_id)
                                        order by e.parent_id, e.child_id)
                         from nofx.artifact_edge e
                        where e.tenant_id = $1 and e.child_id in (select m.id from made m)), '[]'))
                 from nofx.run r where r.tenant_id = $1 and r.id = $2";
    db.query_value(sql, &[(&tenant.0, Type::TEXT), (&run.0, Type::UUID)]).await
}
