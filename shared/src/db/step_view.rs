//! Steps as the API shows them. Large values are left out of lists.

use serde_json::Value;
use tokio_postgres::types::Type;

use super::page::{INLINE_BYTES, Page, page};
use super::pool::{Database, Param};
use crate::domain::{RunId, StepId, TenantId};
use crate::error::Error;

/// A step as JSON; wants `s` a step. Inputs and outputs above `most` bytes are null, and `inputs_omitted: {bytes}` or
/// `outputs_omitted` tells how large they are.
fn columns(most: i32) -> String {
    format!(
        "jsonb_build_object(
             'id', s.id, 'name', s.name, 'tool', s.tool, 'status', s.status,
             'inputs', case when size.inputs <= {most} then s.inputs end,
             'outputs', case when size.outputs <= {most} then s.outputs end,
             'error', case when size.error <= {most} then s.error
                           else jsonb_build_object('code', s.error -> 'code', 'is_shortened', true,
                                                   'message', left(s.error ->> 'message', 2000)) end,
             'attempt', s.attempt, 'blockers', s.blockers,
             'ready_at', s.ready_at, 'started_at', s.started_at, 'finished_at', s.finished_at,
             'depends_on', coalesce((
                 select jsonb_agg(p.name order by p.ordinal)
                   from nofx.step_edge e
                   join nofx.step p on p.id = e.parent_id
                  where e.child_id = s.id), '[]'))
         || case when size.inputs > {most}
                 then jsonb_build_object('inputs_omitted', jsonb_build_object('bytes', size.inputs)) else '{{}}' end
         || case when size.outputs > {most}
                 then jsonb_build_object('outputs_omitted', jsonb_build_object('bytes', size.outputs)) else '{{}}' end"
    )
}

/// Sizes of a step's values. `offset 0` keeps the planner from measuring each of them once for every mention.
const SIZES: &str = "cross join lateral (select octet_length(s.inputs::text) as inputs,
                                                coalesce(octet_length(s.outputs::text), 0) as outputs,
                                                coalesce(octet_length(s.error::text), 0) as error offset 0) size";

/// Steps of a run in the plan's order, after the one with the id `after`.
pub async fn step_list(
    db: &Database,
    tenant: &TenantId,
    run: RunId,
    after: Option<StepId>,
    limit: i64,
) -> Result<Page, Error> {
    let columns = columns(INLINE_BYTES);
    let after = after.map(|id| id.0);
    let sql = format!(
        "select {columns} as json from nofx.step s {SIZES}
          where s.tenant_id = $1 and s.run_id = $3
            and s.ordinal > coalesce((select c.ordinal from nofx.step c where c.run_id = $3 and c.id = $4), -1)
          order by s.ordinal limit $2 + 1"
    );
    let params: [Param<'_>; 4] =
        [(&tenant.0, Type::TEXT), (&limit, Type::INT8), (&run.0, Type::UUID), (&after, Type::UUID)];
    page(db, &sql, limit, &params).await
}

/// One step, whole. `None` when the run has no such step.
pub async fn step_fetch(db: &Database, tenant: &TenantId, run: RunId, name: &str) -> Result<Option<Value>, Error> {
    let columns = columns(i32::MAX);
    let sql =
        format!("select {columns} from nofx.step s {SIZES} where s.tenant_id = $1 and s.run_id = $2 and s.name = $3");
    db.query_value(&sql, &[(&tenant.0, Type::TEXT), (&run.0, Type::UUID), (&name, Type::TEXT)]).await
}

/// Whether the run has a step of that id.
pub async fn step_exists(db: &Database, tenant: &TenantId, run: RunId, step: StepId) -> Result<bool, Error> {
    let sql = "select exists (select from nofx.step s where s.tenant_id = $1 and s.run_id = $2 and s.id = $3)";
    let params: [Param<'_>; 3] = [(&tenant.0, Type::TEXT), (&run.0, Type::UUID), (&step.0, Type::UUID)];
    Ok(db.query_value(sql, &params).await?.unwrap_or(false))
}

/// What a step waits for, as facts: its row, its unfinished parents, its gates. `None` when the run has no such step.
pub async fn step_why(db: &Database, tenant: &TenantId, run: RunId, name: &str) -> Result<Option<Value>, Error> {
    let sql = "select jsonb_build_object(
                   'name', s.name, 'tool', s.tool, 'handler', s.handler, 'status', s.status, 'attempt', s.attempt,
                   'failures', s.failures, 'max_attempts', s.max_attempts, 'workers_lost', s.workers_lost,
                   'blockers', s.blockers, 'error', s.error, 'ready_at', s.ready_at, 'notify_count', s.notify_count,
                   'lease_until', s.lease_until, 'run_status', r.status,
                   'parents', coalesce((
                       select jsonb_agg(jsonb_build_object('name', p.name, 'status', p.status) order by p.ordinal)
                         from nofx.step_edge e
                         join nofx.step p on p.id = e.parent_id
                        where e.child_id = s.id and p.status <> 'succeeded'), '[]'),
                   'gates', coalesce((
                       select jsonb_agg(gate.json) from (
                           select jsonb_build_object('id', g.id, 'gate_type', g.gate_type, 'status', g.status,
                                                     'reason', g.reason, 'expires_at', g.expires_at) as json
                             from nofx.gate g
                            where g.step_id = s.id and g.generation = r.generation
                            order by (g.status = 'pending') desc, g.created_at, g.id limit 100) gate), '[]'))
                 from nofx.step s
                 join nofx.run r on r.id = s.run_id
                where s.tenant_id = $1 and s.run_id = $2 and s.name = $3";
    db.query_value(sql, &[(&tenant.0, Type::TEXT), (&run.0, Type::UUID), (&name, Type::TEXT)]).await
}
