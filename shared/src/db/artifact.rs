//! Artifacts: upload, read, lineage.

use serde_json::Value;
use tokio_postgres::types::Type;

use super::artifact_storage::STORAGE;
use super::page::{INLINE_BYTES, Page, page};
use super::row;
use super::session::{Arg, Session};
use crate::domain::{ArtifactId, NewArtifact, RunId};
use crate::error::{Error, Problem};
use crate::view::{Artifact, ArtifactSummary, Lineage};

/// Records an upload that belongs to no run yet. Safe to repeat.
pub async fn artifact_upload(session: &Session, artifact: &NewArtifact) -> Result<(), Error> {
    session.transition::<Value>("select nofx.artifact_upload($1)", artifact).await.map(|_| ())
}

/// An artifact; `None` when the tenant has no such artifact.
pub async fn artifact_fetch(session: &Session, id: ArtifactId) -> Result<Option<Artifact>, Error> {
    let sql = format!(
        "select a.id, a.tenant_id, a.run_id, a.step_id, a.attempt, a.name, a.type, a.uri, a.hash, a.size_bytes,
                      a.media_type, a.metadata, a.created_at, {STORAGE} as storage
                 from nofx.artifact a
                 left join nofx.artifact_storage s on s.artifact_id = a.id and s.tenant_id = $1
                where a.tenant_id = $1 and a.id = $2"
    );
    row::fetch(session, &sql, &[(&id.0, Type::UUID)]).await
}

/// A problem for each artifact of a workspace (ids by role) that the tenant does not have. `nofx.run_create` reports
/// the same ones.
pub async fn workspace_problems(session: &Session, workspace: &Value) -> Result<Vec<Problem>, Error> {
    let sql = "select coalesce(jsonb_agg(jsonb_build_object(
                          'path', 'plan.workspace.' || w.key,
                          'message', case when a.id is null then format('no artifact has the id %s', w.value)
                                          else format('the artifact %s was deleted on %s', w.value, to_char(s.since at time zone 'UTC', 'YYYY-MM-DD')) end)), '[]')
                 from jsonb_each_text($2) w
                 left join nofx.artifact a on a.id = w.value::uuid and a.tenant_id = $1
                 left join nofx.artifact_storage s on s.artifact_id = a.id and s.tenant_id = $1
                where a.id is null or s.state in ('deleting', 'deleted')";
    let found = session.value(sql, &[(workspace, Type::JSONB)]).await?;
    serde_json::from_value(found.unwrap_or(Value::Null)).map_err(|error| Error::internal("read problems", error))
}

/// Artifacts of a run, oldest first, after the one with the id `after`. Large metadata is null, and
/// `metadata_omitted` gives its size. The caller adds its address.
pub async fn artifact_list(
    session: &Session,
    run: RunId,
    after: Option<ArtifactId>,
    limit: i64,
) -> Result<Page<ArtifactSummary>, Error> {
    let behind = if after.is_some() {
        "(a.created_at, a.id) > (select c.created_at, c.id from nofx.artifact c where c.run_id = $3 and c.id = $4)"
    } else {
        "$4::uuid is null"
    };
    let sql = format!(
        "select a.id, a.step_id, a.attempt, a.name, a.type, a.uri, a.hash, a.size_bytes, a.media_type, a.created_at,
                case when size.metadata <= {INLINE_BYTES} then a.metadata end as metadata,
                case when size.metadata > {INLINE_BYTES}
                     then json_build_object('bytes', size.metadata) end as metadata_omitted
           from nofx.artifact a
          cross join lateral (select octet_length(a.metadata::text) as metadata offset 0) size
          where a.tenant_id = $1 and a.run_id = $3 and {behind} order by a.created_at, a.id limit $2 + 1"
    );
    let after = after.map(|id| id.0);
    let params: [Arg<'_>; 3] = [(&limit, Type::INT8), (&run.0, Type::UUID), (&after, Type::UUID)];
    page(session, &sql, limit, &params).await
}

/// Limits of a lineage.
const LINEAGE_NODES: usize = 1_000;
const LINEAGE_EDGES: usize = 4_000;

/// Artifacts of a run and the edges between them. The run's workspace artifacts are nodes too.
pub async fn run_lineage(session: &Session, run: RunId) -> Result<Option<Lineage>, Error> {
    // The limits also stop the recursion, because Postgres computes only the rows that are read.
    let sql = format!(
        "with recursive made as (
             select a.id from nofx.artifact a where a.tenant_id = $1 and a.run_id = $2
             union
             select e.parent_id from made m join nofx.artifact_edge e on e.child_id = m.id
         ), given as (
             select (w.value ->> 'id')::uuid as id
               from nofx.run r cross join jsonb_each(coalesce(r.workspace, '{{}}')) w
              where r.tenant_id = $1 and r.id = $2
         ), found as materialized (
             select g.id from given g union select m.id from (select m.id from made m limit {LINEAGE_NODES} + 1) m
         ), node as materialized (
             select a.id, a.created_at, a.run_id, a.step_id, s.name as step, a.attempt, left(a.name, 200) as name,
                    left(a.type, 200) as type, a.hash, nofx.artifact_storage_json(k) as storage
               from found f
               join nofx.artifact a on a.id = f.id and a.tenant_id = $1
               left join nofx.step s on s.id = a.step_id
               left join nofx.artifact_storage k on k.artifact_id = a.id and k.tenant_id = $1
              order by a.created_at, a.id limit {LINEAGE_NODES}
         ), edge as materialized (
             select e.parent_id, e.child_id
               from nofx.artifact_edge e
              where e.tenant_id = $1
                and e.child_id in (select n.id from node n) and e.parent_id in (select n.id from node n)
              order by e.parent_id, e.child_id limit {LINEAGE_EDGES} + 1
         )
         select r.id as run_id,
                coalesce((select json_agg(n order by n.created_at, n.id) from node n), '[]') as nodes,
                coalesce((
                    select json_agg(shown)
                      from (select e.parent_id as \"from\", e.child_id as \"to\"
                              from edge e order by e.parent_id, e.child_id limit {LINEAGE_EDGES}) shown), '[]') as edges,
                (select count(*) from found) > {LINEAGE_NODES}
                    or (select count(*) from edge) > {LINEAGE_EDGES} as truncated
           from nofx.run r where r.tenant_id = $1 and r.id = $2"
    );
    row::fetch(session, &sql, &[(&run.0, Type::UUID)]).await
}
