//! The page of an artifact: what it is, who made it, what it was made from, and what vouches for it.

use serde::Deserialize;
use tokio_postgres::types::Type;

use super::WAITING;
use super::step::StoredJson;
use crate::db::GOAL;
use crate::db::row;
use crate::db::session::Session;
use crate::domain::{ArtifactId, ArtifactRef, RunId, Timestamp};
use crate::error::Error;
use crate::view::{ArtifactStorage, LineageEdge, LineageNode};

/// Generations of ancestors and of descendants that are read.
pub const GENERATIONS: usize = 2;
/// Artifacts of each side, and edges between all of them.
const NODES: usize = 100;
const EDGES: usize = 400;
/// Edges of the artifact itself come before those between others.
const DIRECT_FIRST: &str = "$2 not in (e.parent_id, e.child_id), e.parent_id, e.child_id";
/// Characters of the metadata.
const METADATA: usize = 8 << 10;

/// An artifact with the lineage around it.
#[derive(Debug, Clone, Deserialize)]
pub struct ArtifactDetail {
    pub artifact: ArtifactRef,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub created_at: Timestamp,
    /// None of an uploaded artifact, like the step and the attempt.
    pub run_id: Option<RunId>,
    pub goal: Option<String>,
    pub step: Option<String>,
    /// Place of the step in the plan.
    pub ordinal: Option<i64>,
    pub attempt: Option<i64>,
    pub metadata: StoredJson,
    /// The artifact itself, and what is near it.
    pub nodes: Vec<Near>,
    pub edges: Vec<LineageEdge>,
    /// Whether these generations have more artifacts on one side, or more edges, than were read.
    pub truncated: bool,
    pub signed: Option<Signed>,
    pub storage: ArtifactStorage,
    /// Pending gates of the tenant, counted up to 100.
    pub waiting: u64,
}

/// An artifact of the lineage.
#[derive(Debug, Clone, Deserialize)]
pub struct Near {
    #[serde(flatten)]
    pub node: LineageNode,
    /// Place of its step in the plan of the run.
    pub ordinal: Option<i64>,
}

/// The evidence of a gate with the attestation that signs it. The page may be about either of them.
#[derive(Debug, Clone, Deserialize)]
pub struct Signed {
    pub attestation: Option<ArtifactRef>,
    /// None if the evidence is gone.
    pub evidence: Option<ArtifactRef>,
}

/// An artifact with the lineage around it. `None` if the tenant has no such artifact.
pub async fn artifact_detail_fetch(session: &Session, id: ArtifactId) -> Result<Option<ArtifactDetail>, Error> {
    // The limits also stop the recursion, because Postgres computes only the rows that are read.
    let side = |name: &str, from: &str, to: &str| {
        format!(
            "{name}(id, distance) as (
                 select o.id, 0 from nofx.artifact o where o.tenant_id = $1 and o.id = $2
                 union
                 select e.{to}, b.distance + 1
                   from {name} b
                   join nofx.artifact_edge e on e.tenant_id = $1 and e.{from} = b.id
                  where b.distance < {GENERATIONS})"
        )
    };
    let sql = format!(
        "with recursive {UP}, {DOWN}, near as materialized (
             select u.id from (select u.id from up u limit {NODES} + 1) u
             union select d.id from (select d.id from down d limit {NODES} + 1) d
         ), node as materialized (
             select a.id, a.created_at, a.run_id, a.step_id, s.name as step, s.ordinal, a.attempt,
                    left(a.name, 200) as name, left(a.type, 200) as type, a.hash,
                    nofx.artifact_storage_json(k) as storage
               from near n
               join nofx.artifact a on a.id = n.id and a.tenant_id = $1
               left join nofx.step s on s.id = a.step_id
               left join nofx.artifact_storage k on k.artifact_id = a.id and k.tenant_id = $1
         ), edge as materialized (
             select e.parent_id, e.child_id
               from nofx.artifact_edge e
              where e.tenant_id = $1
                and e.child_id in (select n.id from node n) and e.parent_id in (select n.id from node n)
              order by {DIRECT_FIRST} limit {EDGES} + 1)
         select {REF} as artifact, left(o.name, 200) as name, left(o.type, 200) as type, o.created_at, o.run_id,
                {GOAL} as goal, s.name as step, s.ordinal, o.attempt,
                json_build_object('text', left(value.metadata, {METADATA}), 'bytes', octet_length(value.metadata)) as metadata,
                coalesce((select json_agg(n order by n.created_at, n.id) from node n), '[]') as nodes,
                coalesce((select json_agg(json_build_object('from', e.parent_id, 'to', e.child_id))
                            from (select e.* from edge e order by {DIRECT_FIRST} limit {EDGES}) e), '[]') as edges,
                (select count(*) from (select from up limit {NODES} + 1) u) > {NODES}
                    or (select count(*) from (select from down limit {NODES} + 1) d) > {NODES}
                    or (select count(*) from edge) > {EDGES} as truncated,
                {SIGNED}, coalesce(nofx.artifact_storage_json(h), jsonb_build_object('state', 'hot', 'since', o.created_at)) as storage,
                {WAITING} as waiting
           from nofx.artifact o
           left join nofx.artifact_storage h on h.artifact_id = o.id and h.tenant_id = $1
           left join nofx.run r on r.id = o.run_id
           left join nofx.step s on s.id = o.step_id
          cross join lateral (select o.metadata::text as metadata offset 0) value
          where o.tenant_id = $1 and o.id = $2",
        UP = side("up", "child_id", "parent_id"),
        DOWN = side("down", "parent_id", "child_id"),
        REF = reference("o"),
        SIGNED = signed(),
    );
    row::fetch(session, &sql, &[(&id.0, Type::UUID)]).await
}

/// The columns of [`ArtifactRef`].
fn reference(artifact: &str) -> String {
    format!(
        "jsonb_build_object('id', {artifact}.id, 'uri', {artifact}.uri, 'hash', {artifact}.hash,
                            'size_bytes', {artifact}.size_bytes, 'media_type', {artifact}.media_type)"
    )
}

/// The attestation of evidence is made from it.
fn signed() -> String {
    let a = reference("a");
    let other = |kind: &str, of: &str, id: &str| {
        format!(
            "(select {a} from nofx.artifact_edge e
                join nofx.artifact a on a.id = e.{id} and a.tenant_id = $1
               where e.tenant_id = $1 and e.{of} = o.id and a.type = '{kind}' and a.step_id = o.step_id
               order by a.created_at desc, a.id desc limit 1)"
        )
    };
    format!(
        "case when o.type = 'gate_evidence' then jsonb_build_object('evidence', {}, 'attestation', {})
              when o.type = 'gate_attestation' then jsonb_build_object('evidence', {}, 'attestation', {}) end as signed",
        reference("o"),
        other("gate_attestation", "parent_id", "child_id"),
        other("gate_evidence", "child_id", "parent_id"),
        reference("o"),
    )
}
