//! Reads shaped for the pages: bounded, without inputs and outputs, each in one round trip.

use shared::db::{Database, Param};
use shared::domain::{GateId, RunId, TenantId};
use shared::error::Error;
use tokio_postgres::types::{Json, Type};

use crate::view::{Focus, Gate, Run, RunList, RunRow};

/// Runs on a page.
const PAGE: usize = 50;
/// Gates that the inbox shows.
const INBOX: usize = 50;
/// Steps on a page of a run.
pub const STEPS: i64 = 100;
/// Parents of a step that are named.
const PARENTS: usize = 8;
/// Gates on the page of a run: those that wait come first.
const GATES: usize = 50;

/// Gates as the pages show them; wants `g` a gate, and adds its run, step and approval.
const GATE: &str = "jsonb_build_object(
        'id', g.id, 'run_id', g.run_id, 'goal', left(gr.goal, 300), 'step', gs.name, 'gate_type', g.gate_type,
        'status', g.status, 'reason', left(g.reason, 2000), 'evidence_uri', g.evidence_uri,
        'evidence_id', (select a.id from nofx.artifact a
                         where a.tenant_id = $1 and a.run_id = g.run_id and a.uri = g.evidence_uri
                         order by a.id limit 1),
        'created_at', g.created_at, 'expires_at', g.expires_at, 'decided_at', g.decided_at,
        'actor', d.actor, 'decision_reason', d.reason)";
const GATE_JOINS: &str = "join nofx.run gr on gr.id = g.run_id
        left join nofx.step gs on gs.id = g.step_id
        left join nofx.approval d on d.gate_id = g.id";

/// The runs after `after`, newest first, and the gates that wait after `inbox_after`, oldest first.
pub async fn run_list(
    db: &Database,
    tenant: &TenantId,
    after: Option<RunId>,
    inbox_after: Option<GateId>,
) -> Result<RunList, Error> {
    // The cursor is a run or a gate: where it stands is looked up, so a made-up one gives an empty page.
    let sql = format!(
        "select jsonb_build_array(
            coalesce((select jsonb_agg(to_jsonb(run)) from (
                select r.id, r.status, left(r.goal, 300) as goal, r.created_at,
                       (extract(epoch from coalesce(r.finished_at, now()) - r.started_at) * 1000)::bigint as duration_ms
                  from nofx.run r
                 where r.tenant_id = $1
                   and ($2::uuid is null or (r.created_at, r.id) < (
                       select c.created_at, c.id from nofx.run c where c.tenant_id = $1 and c.id = $2))
                 order by r.created_at desc, r.id desc limit {PAGE} + 1) run), '[]'),
            coalesce((select jsonb_agg(gate.json) from (
                select {GATE} as json from nofx.gate g {GATE_JOINS}
                 where g.tenant_id = $1 and g.status = 'pending'
                   and ($3::uuid is null or (g.created_at, g.id) > (
                       select c.created_at, c.id from nofx.gate c where c.tenant_id = $1 and c.id = $3))
                 order by g.created_at, g.id limit {INBOX} + 1) gate), '[]'))"
    );
    let (after_id, inbox_id) = (after.map(|id| id.0), inbox_after.map(|id| id.0));
    let params: [Param<'_>; 3] = [(&tenant.0, Type::TEXT), (&after_id, Type::UUID), (&inbox_id, Type::UUID)];
    let found: Option<Json<(Vec<RunRow>, Vec<Gate>)>> = db.query_value(&sql, &params).await?;
    let (mut runs, mut inbox) = found.map(|json| json.0).unwrap_or_default();
    let (goes_on, inbox_goes_on) = (runs.len() > PAGE, inbox.len() > INBOX);
    runs.truncate(PAGE);
    inbox.truncate(INBOX);
    let older = runs.last().filter(|_| goes_on).map(|run| run.id);
    let inbox_next = inbox.last().filter(|_| inbox_goes_on).map(|gate| gate.id);
    let (is_continuation, inbox_is_continuation) = (after.is_some(), inbox_after.is_some());
    Ok(RunList { inbox, inbox_next, inbox_is_continuation, runs, older, is_continuation })
}

/// A run with a page of its steps, its gates, artifacts and newest events (those before `before`, if given).
pub async fn run_fetch(
    db: &Database,
    tenant: &TenantId,
    run: RunId,
    focus: Focus,
    before: Option<i64>,
) -> Result<Option<Run>, Error> {
    let sql = format!(
        "select jsonb_build_object(
            'id', r.id, 'status', r.status, 'goal', r.goal, 'generation', r.generation, 'plan_digest', r.plan_digest,
            'failure', left(r.failure ->> 'message', 2000), 'created_at', r.created_at, 'started_at', r.started_at,
            'finished_at', r.finished_at, 'deadline_at', r.deadline_at,
            'duration_ms', (extract(epoch from r.finished_at - r.started_at) * 1000)::bigint,
            'steps', coalesce((
                select jsonb_agg(jsonb_build_object(
                           'ordinal', s.ordinal, 'name', s.name, 'tool', s.tool, 'status', s.status,
                           'attempt', s.attempt, 'max_attempts', s.max_attempts, 'failures', s.failures,
                           'workers_lost', s.workers_lost, 'error', left(s.error ->> 'message', 1000),
                           'ready_at', case when s.status = 'ready' and s.ready_at > now() then s.ready_at end,
                           'duration_ms', (extract(epoch from s.finished_at - s.started_at) * 1000)::bigint,
                           'parents_total', (select count(*) from nofx.step_edge e where e.child_id = s.id),
                           'depends_on', coalesce((
                               select jsonb_agg(to_jsonb(parent)) from (
                                   select p.ordinal, p.name
                                     from nofx.step_edge e
                                     join nofx.step p on p.id = e.parent_id
                                    where e.child_id = s.id order by p.ordinal limit {PARENTS}) parent), '[]'))
                       order by s.ordinal)
                  from nofx.step s
                 where s.tenant_id = $1 and s.run_id = r.id and s.ordinal >= $4 and s.ordinal - $4 < {STEPS}), '[]'),
            'steps_total', (select count(*) from nofx.step s where s.tenant_id = $1 and s.run_id = r.id),
            'gates', coalesce((
                select jsonb_agg(gate.json) from (
                    select {GATE} as json from nofx.gate g {GATE_JOINS}
                     where g.tenant_id = $1 and g.run_id = r.id
                     order by g.id is not distinct from $5::uuid desc, (g.status = 'pending') desc,
                              case when g.status = 'pending' then g.created_at end, g.created_at desc, g.id desc
                     limit {GATES}) gate), '[]'),
            'gates_total', (select count(*) from nofx.gate g where g.tenant_id = $1 and g.run_id = r.id),
            'artifacts', coalesce((
                select jsonb_agg(to_jsonb(artifact)) from (
                    select a.id, s.name as step, left(a.name, 200) as name, left(a.type, 200) as type, a.hash, a.size_bytes, a.media_type
                      from nofx.artifact a
                      left join nofx.step s on s.id = a.step_id
                     where a.tenant_id = $1 and a.run_id = r.id
                     order by a.created_at desc, a.id desc limit 200) artifact), '[]'),
            'artifacts_total', (
                select count(*) from nofx.artifact a where a.tenant_id = $1 and a.run_id = r.id),
            'events', coalesce((
                select jsonb_agg(to_jsonb(event)) from (
                    select e.seq, s.name as step, e.type, e.timestamp,
                           coalesce(e.payload ->> 'gate_type', e.payload ->> 'name') as subject,
                           e.payload ->> 'attempt' as attempt, e.payload ->> 'actor' as actor,
                           left(e.payload ->> 'reason', 500) as reason,
                           left(coalesce(e.payload -> 'error' ->> 'message', e.payload -> 'failure' ->> 'message'),
                                500) as error
                      from nofx.event e
                      left join nofx.step s on s.id = e.step_id
                     where e.tenant_id = $1 and e.run_id = r.id and ($3::bigint is null or e.seq < $3)
                     order by e.seq desc limit 200) event), '[]'))
          from nofx.run r
         where r.tenant_id = $1 and r.id = $2"
    );
    let gate = focus.gate.map(|id| id.0);
    let params: [Param<'_>; 5] = [
        (&tenant.0, Type::TEXT),
        (&run.0, Type::UUID),
        (&before, Type::INT8),
        (&focus.steps_from, Type::INT8),
        (&gate, Type::UUID),
    ];
    let found: Option<Json<Run>> = db.query_value(&sql, &params).await?;
    Ok(found.map(|json| Run { focus, ..json.0 }))
}
