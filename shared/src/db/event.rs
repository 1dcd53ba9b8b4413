//! The timeline.

use tokio_postgres::types::Type;

use super::page::{Page, page};
use super::session::{Arg, Session};
use crate::domain::RunId;
use crate::error::Error;
use crate::view::Event;

/// Events of a run with a sequence number above `after`, in order. Numbers have no gaps and are assigned under the
/// run's lock, so a reader that continues after the last number it saw misses no event.
pub async fn event_list(session: &Session, run: RunId, after: i64, limit: i64) -> Result<Page<Event>, Error> {
    let sql = "select e.id, e.run_id, e.seq, e.step_id, s.name as step, e.type, e.payload, e.timestamp
                 from nofx.event e
                 left join nofx.step s on s.id = e.step_id
                where e.tenant_id = $1 and e.run_id = $3 and e.seq > $4
                order by e.seq limit $2 + 1";
    let params: [Arg<'_>; 3] = [(&limit, Type::INT8), (&run.0, Type::UUID), (&after, Type::INT8)];
    page(session, sql, limit, &params).await
}
