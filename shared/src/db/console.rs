//! Reads for the console's pages. Each page takes one round trip and has a bounded size, without inputs and outputs.

use serde::Deserialize;
use tokio_postgres::types::Type;

use super::pool::{Database, Param};
use super::row;
use crate::domain::{ArtifactId, ArtifactRef, GateId, GateStatus, RunId, RunStatus, StepStatus, TenantId, Timestamp};
use crate::error::Error;

/// Runs on a page.
const PAGE: usize = 50;
/// Gates in the inbox.
const INBOX: usize = 50;
/// Steps on a page of a run.
pub const STEPS: i64 = 100;
/// Parents that a step lists.
const PARENTS: usize = 8;
/// Gates on the page of a run, pending ones first.
const GATES: usize = 50;
/// Documents of an attempt, and gates of a step, beside a document.
const BESIDE: usize = 20;
/// The gate at which a person decides about weakened checks.
const GATE_CHANGE: &str = "manual:gate-change";

/// The list of runs, and the inbox of pending gates above it.
#[derive(Debug, Clone, Default)]
pub struct RunList {
    pub inbox: Vec<Gate>,
    /// The last gate in the inbox, if more are pending.
    pub inbox_next: Option<GateId>,
    /// Whether the inbox starts after the oldest gate.
    pub inbox_is_continuation: bool,
    pub runs: Vec<RunRow>,
    /// The last run of this page, if older ones follow.
    pub older: Option<RunId>,
    /// Whether this is not the first page.
    pub is_continuation: bool,
}

/// A run in the list.
#[derive(Debug, Clone, Deserialize)]
pub struct RunRow {
    pub id: RunId,
    pub status: RunStatus,
    pub goal: String,
    pub created_at: Timestamp,
    /// From start to end, or until now.
    pub duration_ms: Option<i64>,
}

/// One run.
#[derive(Debug, Clone, Deserialize)]
pub struct Run {
    pub id: RunId,
    pub status: RunStatus,
    pub goal: String,
    pub generation: i64,
    pub plan_digest: String,
    /// Why the run failed, if no step failed.
    pub failure: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub deadline_at: Option<Timestamp>,
    /// From start to end, once it has ended.
    pub duration_ms: Option<i64>,
    /// One page of steps, in the plan's order.
    pub steps: Vec<Step>,
    pub steps_total: usize,
    pub gates: Vec<Gate>,
    pub gates_total: usize,
    pub artifacts: Vec<Artifact>,
    pub artifacts_total: usize,
    /// Newest first.
    pub events: Vec<Event>,
    /// What the reader selected.
    #[serde(skip)]
    pub focus: Focus,
}

/// The part of a large run that a page shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Focus {
    /// Ordinal of the first step.
    pub steps_from: i64,
    /// A gate to list first.
    pub gate: Option<GateId>,
}

/// A step of a run.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    pub ordinal: i64,
    pub name: String,
    pub tool: String,
    pub status: StepStatus,
    pub attempt: i64,
    pub max_attempts: i64,
    pub failures: i64,
    pub workers_lost: i64,
    pub error: Option<String>,
    /// Time of the next attempt, if it is in the future.
    pub ready_at: Option<Timestamp>,
    pub duration_ms: Option<i64>,
    /// The first parents.
    pub depends_on: Vec<Parent>,
    pub parents_total: usize,
}

/// A step that another step waits for.
#[derive(Debug, Clone, Deserialize)]
pub struct Parent {
    pub ordinal: i64,
    pub name: String,
}

/// A gate, on any page.
#[derive(Debug, Clone, Deserialize)]
pub struct Gate {
    pub id: GateId,
    pub run_id: RunId,
    pub goal: String,
    /// Name of the step that waits for it; none for a gate of the run itself.
    pub step: Option<String>,
    pub gate_type: String,
    pub status: GateStatus,
    pub reason: Option<String>,
    pub evidence_uri: Option<String>,
    /// Id of the artifact at `evidence_uri`.
    pub evidence_id: Option<ArtifactId>,
    /// The type of that artifact.
    pub evidence_type: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub decided_at: Option<Timestamp>,
    pub actor: Option<String>,
    pub decision_reason: Option<String>,
}

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

/// A stored output.
#[derive(Debug, Clone, Deserialize)]
pub struct Artifact {
    pub id: ArtifactId,
    pub step: Option<String>,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub hash: String,
    pub size_bytes: u64,
    pub media_type: String,
}

/// An event of the timeline.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    pub seq: i64,
    pub step: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    pub timestamp: Timestamp,
    /// Type of the gate or name of the artifact that it is about.
    pub subject: Option<String>,
    pub attempt: Option<String>,
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub error: Option<String>,
}

impl Run {
    /// Whether the run can still change without a request.
    pub fn is_open(&self) -> bool {
        !self.status.is_terminal()
    }
}

impl Gate {
    /// Whether a person decides about a difference that the console can show.
    pub fn is_about_change(&self) -> bool {
        self.gate_type == GATE_CHANGE && self.evidence_id.is_some()
    }

    pub fn is_pending(&self) -> bool {
        self.status == GateStatus::Pending
    }
}

/// Columns of a gate with its run, step and decision. The query names the gate `g` and adds [`GATE_JOINS`].
const GATE: &str = "g.id, g.run_id, left(gr.goal, 300) as goal, gs.name as step, g.gate_type, g.status,
        left(g.reason, 2000) as reason, g.evidence_uri,
        ge.id as evidence_id, ge.type as evidence_type, g.created_at, g.expires_at, g.decided_at, d.actor,
        d.reason as decision_reason";
const GATE_JOINS: &str = "join nofx.run gr on gr.id = g.run_id
        left join nofx.step gs on gs.id = g.step_id
        left join nofx.approval d on d.gate_id = g.id
        left join lateral (
            select a.id, left(a.type, 200) as type from nofx.artifact a
             where a.tenant_id = $1 and a.run_id = g.run_id and a.uri = g.evidence_uri
             order by a.id limit 1) ge on true";

/// Runs after `after`, newest first, and pending gates after `inbox_after`, oldest first.
pub async fn run_list(
    db: &Database,
    tenant: &TenantId,
    after: Option<RunId>,
    inbox_after: Option<GateId>,
) -> Result<RunList, Error> {
    #[derive(Deserialize)]
    struct Found {
        runs: Vec<RunRow>,
        inbox: Vec<Gate>,
    }
    // A cursor is the id of a run or a gate, and its position is looked up. An unknown id gives an empty page.
    let sql = format!(
        "select coalesce((select json_agg(run) from (
                    select r.id, r.status, left(r.goal, 300) as goal, r.created_at,
                           (extract(epoch from coalesce(r.finished_at, now()) - r.started_at) * 1000)::bigint
                               as duration_ms
                      from nofx.run r
                     where r.tenant_id = $1
                       and ($2::uuid is null or (r.created_at, r.id) < (
                           select c.created_at, c.id from nofx.run c where c.tenant_id = $1 and c.id = $2))
                     order by r.created_at desc, r.id desc limit {PAGE} + 1) run), '[]') as runs,
                coalesce((select json_agg(gate) from (
                    select {GATE} from nofx.gate g {GATE_JOINS}
                     where g.tenant_id = $1 and g.status = 'pending'
                       and ($3::uuid is null or (g.created_at, g.id) > (
                           select c.created_at, c.id from nofx.gate c where c.tenant_id = $1 and c.id = $3))
                     order by g.created_at, g.id limit {INBOX} + 1) gate), '[]') as inbox"
    );
    let (after_id, inbox_id) = (after.map(|id| id.0), inbox_after.map(|id| id.0));
    let params: [Param<'_>; 3] = [(&tenant.0, Type::TEXT), (&after_id, Type::UUID), (&inbox_id, Type::UUID)];
    let found: Option<Found> = row::fetch(db, &sql, &params).await?;
    let Found { mut runs, mut inbox } = found.ok_or_else(|| Error::internal("list runs", "no row"))?;
    let (has_more, inbox_has_more) = (runs.len() > PAGE, inbox.len() > INBOX);
    runs.truncate(PAGE);
    inbox.truncate(INBOX);
    let older = runs.last().filter(|_| has_more).map(|run| run.id);
    let inbox_next = inbox.last().filter(|_| inbox_has_more).map(|gate| gate.id);
    let (is_continuation, inbox_is_continuation) = (after.is_some(), inbox_after.is_some());
    Ok(RunList { inbox, inbox_next, inbox_is_continuation, runs, older, is_continuation })
}

/// A run with a page of its steps, its gates, artifacts and newest events. With `before`, only events before that
/// number.
pub async fn run_fetch(
    db: &Database,
    tenant: &TenantId,
    run: RunId,
    focus: Focus,
    before: Option<i64>,
) -> Result<Option<Run>, Error> {
    let sql = format!(
        "select r.id, r.status, r.goal, r.generation, r.plan_digest, left(r.failure ->> 'message', 2000) as failure,
                r.created_at, r.started_at, r.finished_at, r.deadline_at,
                (extract(epoch from r.finished_at - r.started_at) * 1000)::bigint as duration_ms,
                coalesce((select json_agg(step) from ({}) step), '[]') as steps,
                (select count(*) from nofx.step s where s.tenant_id = $1 and s.run_id = r.id) as steps_total,
                coalesce((select json_agg(gate) from (
                    select {GATE} from nofx.gate g {GATE_JOINS}
                     where g.tenant_id = $1 and g.run_id = r.id
                     order by g.id is not distinct from $5::uuid desc, (g.status = 'pending') desc,
                              case when g.status = 'pending' then g.created_at end, g.created_at desc, g.id desc
                     limit {GATES}) gate), '[]') as gates,
                (select count(*) from nofx.gate g where g.tenant_id = $1 and g.run_id = r.id) as gates_total,
                coalesce((select json_agg(artifact) from ({ARTIFACTS_OF_RUN}) artifact), '[]') as artifacts,
                (select count(*) from nofx.artifact a where a.tenant_id = $1 and a.run_id = r.id) as artifacts_total,
                coalesce((select json_agg(event) from ({EVENTS_OF_RUN}) event), '[]') as events
           from nofx.run r
          where r.tenant_id = $1 and r.id = $2",
        steps_of_run()
    );
    let gate = focus.gate.map(|id| id.0);
    let params: [Param<'_>; 5] = [
        (&tenant.0, Type::TEXT),
        (&run.0, Type::UUID),
        (&before, Type::INT8),
        (&focus.steps_from, Type::INT8),
        (&gate, Type::UUID),
    ];
    let found: Option<Run> = row::fetch(db, &sql, &params).await?;
    Ok(found.map(|run| Run { focus, ..run }))
}

/// A gate of the tenant.
pub async fn gate_fetch(db: &Database, tenant: &TenantId, gate: GateId) -> Result<Option<Gate>, Error> {
    let sql = format!("select {GATE} from nofx.gate g {GATE_JOINS} where g.tenant_id = $1 and g.id = $2");
    row::fetch(db, &sql, &[(&tenant.0, Type::TEXT), (&gate.0, Type::UUID)]).await
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

// Parts of the query for a run `r`, in the order of the page.

fn steps_of_run() -> String {
    format!(
        "select s.ordinal, s.name, s.tool, s.status, s.attempt, s.max_attempts, s.failures, s.workers_lost,
                left(s.error ->> 'message', 1000) as error,
                case when s.status = 'ready' and s.ready_at > now() then s.ready_at end as ready_at,
                (extract(epoch from s.finished_at - s.started_at) * 1000)::bigint as duration_ms,
                (select count(*) from nofx.step_edge e where e.child_id = s.id) as parents_total,
                coalesce((select json_agg(parent) from (
                    select p.ordinal, p.name
                      from nofx.step_edge e
                      join nofx.step p on p.id = e.parent_id
                     where e.child_id = s.id order by p.ordinal limit {PARENTS}) parent), '[]') as depends_on
           from nofx.step s
          where s.tenant_id = $1 and s.run_id = r.id and s.ordinal >= $4 and s.ordinal - $4 < {STEPS}
          order by s.ordinal"
    )
}

const ARTIFACTS_OF_RUN: &str =
    "select a.id, s.name as step, left(a.name, 200) as name, left(a.type, 200) as type, a.hash, a.size_bytes, a.media_type
       from nofx.artifact a
       left join nofx.step s on s.id = a.step_id
      where a.tenant_id = $1 and a.run_id = r.id
      order by a.created_at desc, a.id desc limit 200";

const EVENTS_OF_RUN: &str = "select e.seq, s.name as step, e.type, e.timestamp,
            coalesce(e.payload ->> 'gate_type', e.payload ->> 'name') as subject,
            e.payload ->> 'attempt' as attempt, e.payload ->> 'actor' as actor,
            left(e.payload ->> 'reason', 500) as reason,
            left(coalesce(e.payload -> 'error' ->> 'message', e.payload -> 'failure' ->> 'message'), 500) as error
       from nofx.event e
       left join nofx.step s on s.id = e.step_id
      where e.tenant_id = $1 and e.run_id = r.id and ($3::bigint is null or e.seq < $3)
      order by e.seq desc limit 200";
