//! The timeline.

use serde_json::Value;
use tokio_postgres::types::Type;

use super::pool::{Database, column};
use crate::domain::{RunId, TenantId};
use crate::error::Error;

/// Events of a run with a sequence number above `after`, in order, at most `limit`. Numbers are dense and given under the
/// run's lock, so a reader that goes on from the last one it saw misses nothing.
pub async fn event_list(
    db: &Database,
    tenant: &TenantId,
    run: RunId,
    after: i64,
    limit: i64,
) -> Result<Vec<Value>, Error> {
    let sql = "select jsonb_build_object('id', e.id, 'run_id', e.run_id, 'seq', e.seq, 'step_id', e.step_id,
                      'step', s.name, 'type', e.type, 'payload', e.payload, 'timestamp', e.timestamp)
                 from nofx.event e
                 left join nofx.step s on s.id = e.step_id
                where e.tenant_id = $1 and e.run_id = $2 and e.seq > $3
                order by e.seq limit $4";
    let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] =
        [(&tenant.0, Type::TEXT), (&run.0, Type::UUID), (&after, Type::INT8), (&limit, Type::INT8)];
    db.query(sql, &params).await?.iter().map(column).collect()
}
