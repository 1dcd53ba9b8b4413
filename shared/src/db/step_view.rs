//! Steps as the API shows them. Large values are left out of lists.

use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::page::{INLINE_BYTES, Page, page};
use super::session::{Arg, Session};
use super::{GOAL, row};
use crate::domain::{RunId, StepId};
use crate::error::Error;
use crate::view::{DeadLetterStep, Step, StepWhy};

/// Columns of a step as the API shows it. The query names the step `s`. Inputs and outputs above `max` bytes are left
/// out, and their size is given. The caller adds their address.
fn columns(max: i32) -> String {
    format!(
        "s.id, s.name, s.tool, s.status, s.attempt, s.blockers, s.ready_at, s.started_at, s.finished_at,
         case when size.inputs <= {max} then s.inputs end as inputs,
         case when size.inputs > {max} then json_build_object('bytes', size.inputs) end as inputs_omitted,
         case when size.outputs <= {max} then s.outputs end as outputs,
         case when size.outputs > {max} then json_build_object('bytes', size.outputs) end as outputs_omitted,
         case when size.error <= {max} then s.error
              else jsonb_build_object('code', s.error -> 'code', 'is_shortened', true,
                                      'message', left(s.error ->> 'message', 2000)) end as error,
         (select sum(coalesce(c.charged_usd_micros, 0))::bigint from nofx.llm_call c where c.step_id = s.id) as cost_usd_micros,
         array(select p.name
                 from nofx.step_edge e
                 join nofx.step p on p.id = e.parent_id
                where e.child_id = s.id order by p.ordinal) as depends_on"
    )
}

/// Sizes of a step's values. `offset 0` keeps the planner from measuring a value each time that it is used.
const SIZES: &str = "cross join lateral (select octet_length(s.inputs::text) as inputs,
                                                coalesce(octet_length(s.outputs::text), 0) as outputs,
                                                coalesce(octet_length(s.error::text), 0) as error offset 0) size";

/// Steps of a run in the plan's order, after the one with the id `after`.
pub async fn step_list(session: &Session, run: RunId, after: Option<StepId>, limit: i64) -> Result<Page<Step>, Error> {
    let columns = columns(INLINE_BYTES);
    let after = after.map(|id| id.0);
    let sql = format!(
        "select {columns} from nofx.step s {SIZES}
          where s.tenant_id = $1 and s.run_id = $3
            and s.ordinal > coalesce((select c.ordinal from nofx.step c where c.run_id = $3 and c.id = $4), -1)
          order by s.ordinal limit $2 + 1"
    );
    let params: [Arg<'_>; 3] = [(&limit, Type::INT8), (&run.0, Type::UUID), (&after, Type::UUID)];
    page(session, &sql, limit, &params).await
}

/// One step with its full inputs and outputs. `None` if the run has no such step.
pub async fn step_fetch(session: &Session, run: RunId, name: &str) -> Result<Option<Step>, Error> {
    let columns = columns(i32::MAX);
    let sql =
        format!("select {columns} from nofx.step s {SIZES} where s.tenant_id = $1 and s.run_id = $2 and s.name = $3");
    row::fetch(session, &sql, &[(&run.0, Type::UUID), (&name, Type::TEXT)]).await
}

/// Whether the run has a step with that id.
pub async fn step_exists(session: &Session, run: RunId, step: StepId) -> Result<bool, Error> {
    let sql = "select from nofx.step s where s.tenant_id = $1 and s.run_id = $2 and s.id = $3";
    row::exists(session, sql, &[(&run.0, Type::UUID), (&step.0, Type::UUID)]).await
}

/// What a step waits for, without the sentence `why`. `None` if the run has no such step.
pub async fn step_why(session: &Session, run: RunId, name: &str) -> Result<Option<StepWhy>, Error> {
    let sql = "select s.name, s.tool, s.handler, s.status, s.attempt, s.failures, s.max_attempts, s.workers_lost,
                      s.blockers, s.error, s.ready_at, s.notify_count, s.lease_until, r.status as run_status,
                      coalesce((
                          select json_agg(parent) from (
                              select p.name, p.status
                                from nofx.step_edge e
                                join nofx.step p on p.id = e.parent_id
                               where e.child_id = s.id and p.status <> 'succeeded' order by p.ordinal) parent), '[]'
                      ) as parents,
                      coalesce((
                          select json_agg(gate) from (
                              select g.id, g.gate_type, g.status, g.reason, g.expires_at,
                                     case when g.gate_type = 'budget' then g.subject end as subject,
                                     coalesce(g.status = 'pending' and g.expires_at < now(), false) as is_over
                                from nofx.gate g
                               where g.step_id = s.id and g.generation = r.generation
                               order by (g.status = 'pending') desc, g.created_at, g.id limit 100) gate), '[]') as gates
                 from nofx.step s
                 join nofx.run r on r.id = s.run_id
                where s.tenant_id = $1 and s.run_id = $2 and s.name = $3";
    row::fetch(session, sql, &[(&run.0, Type::UUID), (&name, Type::TEXT)]).await
}

/// Those of these steps that the tenant has, with the goals of their runs.
pub async fn steps_of_letters(session: &Session, steps: &[StepId]) -> Result<Vec<DeadLetterStep>, Error> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = steps.iter().map(|step| step.0).collect();
    let sql = format!(
        "select coalesce(jsonb_agg(jsonb_build_object('id', s.id, 'name', s.name, 'status', s.status,
                                                            'run_id', s.run_id, 'goal', {GOAL})), '[]')
                 from nofx.step s
                 join nofx.run r on r.id = s.run_id
                where s.tenant_id = $1 and s.id = any ($2)"
    );
    let found = session.value(&sql, &[(&ids, Type::UUID_ARRAY)]).await?;
    serde_json::from_value(found.unwrap_or(Value::Null)).map_err(|error| Error::internal("read steps", error))
}
