//! The page of a gate: what a decision is about, what it can rely on, and what it starts.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_postgres::types::Type;

use super::WAITING;
use super::follow::{self, Effects, Start};
use super::gate::{GATE, GATE_JOINS, Gate};
use crate::db::gate::{STANDING, STANDING_JOIN};
use crate::db::row;
use crate::db::session::{Arg, Session};
use crate::domain::gate::{Decision, GATE_CHANGE};
use crate::domain::{ArtifactId, ArtifactRef, GateId, RunStatus, StepStatus, Timestamp};
use crate::error::Error;
use crate::view::Standing;

/// Steps with evidence, documents, decisions of the run: the first ones are on the page.
const PROOFS: usize = 50;
const DOCUMENTS: usize = 12;
const OUTPUTS: usize = 6;
const OTHERS: usize = 10;
/// Larger outputs are not on the page.
const OUTPUT_BYTES: usize = 8 << 10;

/// A gate, with everything that a decision needs.
#[derive(Debug, Clone, Deserialize)]
pub struct GateDetail {
    #[serde(flatten)]
    pub gate: Gate,
    /// Ordinal, tool and state of the step that waits.
    pub step_ordinal: Option<i64>,
    pub step_tool: Option<String>,
    /// Who has approved, and who may.
    #[serde(flatten)]
    pub standing: Standing,
    /// The digest of everything that a decision covers.
    #[serde(default)]
    pub digest: Option<String>,
    /// What is judged or decided: digests by name.
    pub subject: Option<Map<String, Value>>,
    /// Other pending gates of the run that ask about the same subject. One approval answers all of them.
    pub same: u64,
    pub run_status: RunStatus,
    pub plan_digest: String,
    /// Other steps of the run that have not started or wait for a person. A rejection skips them.
    pub steps_waiting: u64,
    /// Other pending gates of the run. A rejection cancels them.
    pub gates_waiting: u64,
    /// Steps before the gate that judge on evidence, in the plan's order.
    pub proofs: Vec<Proof>,
    /// All of them by their state.
    pub proof_counts: HashMap<StepStatus, u64>,
    /// What steps right before the gate returned.
    pub outputs: Vec<StepOutputs>,
    /// Documents of steps before the gate, newest first.
    pub documents: Vec<Exhibit>,
    pub documents_total: usize,
    /// Steps that an approval lets start, or brings nearer to their start. Writes come first.
    pub starts: Vec<Start>,
    pub starts_counts: Effects,
    /// Steps with effects that follow those without another question. Writes come first, each table before the next write
    /// of the same one.
    pub later: Vec<Start>,
    pub later_counts: Effects,
    /// Other decisions in the run, newest first.
    pub others: Vec<OtherDecision>,
    pub policy: Option<PolicyInForce>,
    /// Pending gates of the tenant, counted up to 100.
    pub waiting: u64,
    /// The gate that the reader decided before this one.
    pub before: Option<Gate>,
}

/// A step that judges on evidence.
#[derive(Debug, Clone, Deserialize)]
pub struct Proof {
    pub ordinal: i64,
    pub name: String,
    pub tool: String,
    pub status: StepStatus,
    /// Why it passed or failed.
    pub reason: Option<String>,
    /// The newest evidence.
    pub evidence_id: Option<ArtifactId>,
    /// `{ratio, threshold, covered, uncovered, unmeasured}`.
    pub coverage: Option<Value>,
    /// Numbers by severity.
    pub findings: Option<Value>,
}

/// What a step returned.
#[derive(Debug, Clone, Deserialize)]
pub struct StepOutputs {
    pub name: String,
    pub tool: String,
    /// None if they are too large.
    pub outputs: Option<Value>,
    pub bytes: u64,
}

/// A document that a decision may be about.
#[derive(Debug, Clone, Deserialize)]
pub struct Exhibit {
    pub artifact: ArtifactRef,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub step: Option<String>,
    /// The tool of that step.
    pub tool: Option<String>,
}

/// A decision about another gate of the run.
#[derive(Debug, Clone, Deserialize)]
pub struct OtherDecision {
    pub gate_id: GateId,
    pub gate_type: String,
    pub step: Option<String>,
    pub decision: Decision,
    pub actor: String,
    pub reason: Option<String>,
    pub created_at: Timestamp,
}

/// The tenant's policy.
#[derive(Debug, Clone, Deserialize)]
pub struct PolicyInForce {
    pub version: u32,
    pub document: Value,
}

/// A gate with everything that a decision needs. `before` is a gate that the reader has just decided.
pub async fn decision_fetch(
    session: &Session,
    gate: GateId,
    before: Option<GateId>,
) -> Result<Option<GateDetail>, Error> {
    let sql = format!(
        "with recursive earlier_id(id) as (
             select e.parent_id
               from nofx.gate g
               join nofx.step_edge e on e.child_id = g.step_id
              where g.tenant_id = $1 and g.id = $2
             union
             select e.parent_id from earlier_id b join nofx.step_edge e on e.child_id = b.id
         ), earlier as materialized (
             select s.id, s.ordinal, s.name, s.tool, s.status, s.outputs
               from earlier_id b
               join nofx.step s on s.id = b.id
             union all
             -- A gate of the run itself is behind all steps.
             select s.id, s.ordinal, s.name, s.tool, s.status, s.outputs
               from nofx.gate g
               join nofx.step s on s.run_id = g.run_id
              where g.tenant_id = $1 and g.id = $2 and g.step_id is null
         )
         select {GATE}, gs.ordinal as step_ordinal, gs.tool as step_tool, g.subject, g.bound_digest as digest, {STANDING},
                gr.status as run_status, gr.plan_digest, gr.steps_pending + gr.steps_ready + gr.steps_blocked
                    - case when gs.status = 'blocked' then 1 else 0 end as steps_waiting,
                (select count(*) from nofx.gate o
                  where o.run_id = g.run_id and o.gate_type = '{GATE_CHANGE}' and g.gate_type = o.gate_type
                    and o.status = 'pending' and o.generation = g.generation and o.subject = g.subject
                    and o.id <> g.id) as same,
                (select count(*) from nofx.gate o
                  where o.tenant_id = $1 and o.run_id = g.run_id and o.status = 'pending' and o.id <> g.id) as gates_waiting,
                {PROOFS_OF_GATE},
                {OUTPUTS_OF_GATE},
                {DOCUMENTS_OF_GATE},
                follow.*,
                {OTHERS_OF_GATE},
                (select json_build_object('version', p.version, 'document', p.document)
                   from nofx.policy p where p.tenant_id = $1 order by p.version desc limit 1) as policy,
                {WAITING} as waiting,
                (select to_json(decided) from (
                    select {GATE} from nofx.gate g {GATE_JOINS} where g.tenant_id = $1 and g.id = $3) decided) as before
           from nofx.gate g {GATE_JOINS} {STANDING_JOIN}
          cross join lateral ({FOLLOWING}) follow
          where g.tenant_id = $1 and g.id = $2",
        PROOFS_OF_GATE = proofs(),
        OUTPUTS_OF_GATE = outputs(),
        DOCUMENTS_OF_GATE = documents(),
        FOLLOWING = follow::starts_and_later(),
        OTHERS_OF_GATE = others(),
    );
    let before = before.map(|id| id.0);
    let params: [Arg<'_>; 2] = [(&gate.0, Type::UUID), (&before, Type::UUID)];
    row::fetch(session, &sql, &params).await
}

// Parts of the query for a gate `g`, in the order of the page. `earlier` are the steps before the gate.

fn proofs() -> String {
    let reason = cut!("v.reason", 300);
    format!(
        "coalesce((select json_agg(proof) from (
                select s.ordinal, s.name, s.tool, s.status, s.outputs -> 'coverage' as coverage, s.outputs -> 'findings' as findings,
                       (select {reason} from nofx.gate v
                         where v.step_id = s.id and v.gate_type = s.tool and v.on_pass <> 'release'
                         order by v.created_at desc, v.id desc limit 1) as reason,
                       (select a.id from nofx.artifact a
                         where a.tenant_id = $1 and a.step_id = s.id and a.type = 'gate_evidence'
                         order by a.created_at desc, a.id desc limit 1) as evidence_id
                  from earlier s
                 where s.tool like 'gate:%'
                 order by s.ordinal limit {PROOFS}) proof), '[]') as proofs,
         coalesce((select json_object_agg(counted.status, counted.count)
                     from (select s.status, count(*) as count from earlier s where s.tool like 'gate:%' group by s.status) counted),
                  '{{}}') as proof_counts"
    )
}

/// Outputs of steps right before the gate. Evidence and documents of steps are elsewhere on the page.
fn outputs() -> String {
    format!(
        "coalesce((select json_agg(returned) from (
                select p.name, p.tool, size.bytes, case when size.bytes <= {OUTPUT_BYTES} then p.outputs end as outputs
                  from nofx.step_edge e
                  join nofx.step p on p.id = e.parent_id
                 cross join lateral (select octet_length(p.outputs::text) as bytes offset 0) size
                 where e.child_id = g.step_id and p.outputs is not null and p.outputs <> '{{}}'
                   and p.tool not like 'gate:%' and p.tool not like 'manual:%' and p.tool not like 'workspace:%'
                   and p.tool <> 'codegen'
                 order by p.ordinal limit {OUTPUTS}) returned), '[]') as outputs"
    )
}

/// The newest document of each name of each earlier step, and what the gate itself names.
fn documents() -> String {
    let listed = "select distinct on (a.step_id, a.name)
                         jsonb_build_object('id', a.id, 'uri', a.uri, 'hash', a.hash, 'size_bytes', a.size_bytes,
                                            'media_type', a.media_type) as artifact,
                         left(a.name, 200) as name, left(a.type, 200) as type, s.name as step, s.tool,
                         a.uri = g.evidence_uri as is_named, a.created_at, a.id
                    from nofx.artifact a
                    left join earlier s on s.id = a.step_id
                   where a.tenant_id = $1 and a.run_id = g.run_id
                     and (s.id is not null or a.uri = g.evidence_uri)
                     and a.type not in ('gate_evidence', 'gate_attachment', 'gate_attestation', 'workspace', 'sbom')
                   order by a.step_id, a.name, a.created_at desc, a.id desc";
    format!(
        "coalesce((select json_agg(document) from (
                select d.artifact, d.name, d.type, d.step, d.tool from ({listed}) d
                 order by d.is_named desc nulls last, d.created_at desc, d.id desc limit {DOCUMENTS}) document), '[]') as documents,
         (select count(*) from ({listed}) d) as documents_total"
    )
}

fn others() -> String {
    format!(
        "coalesce((select json_agg(other) from (
                select o.id as gate_id, left(o.gate_type, 100) as gate_type, s.name as step, d.decision, d.actor,
                       d.reason, d.created_at
                  from nofx.gate o
                  join nofx.approval d on d.gate_id = o.id
                  left join nofx.step s on s.id = o.step_id
                 where o.tenant_id = $1 and o.run_id = g.run_id and o.id <> g.id
                 order by d.created_at desc, o.id desc limit {OTHERS}) other), '[]') as others"
    )
}
