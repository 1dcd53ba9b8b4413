//! Cancel, pause, resume, retry.

use super::wake;
use crate::context::Ctx;
use crate::db::run::{self, Control, Controlled};
use crate::domain::{RunId, TenantId};
use crate::error::Error;

/// Asks something of a run. A conflict tells the state that forbids it; nothing has changed then.
pub async fn control_run(
    ctx: &Ctx,
    tenant: &TenantId,
    id: RunId,
    control: Control,
    actor: &str,
) -> Result<Controlled, Error> {
    let mut controlled = run::run_control(&ctx.db, tenant, id, control, actor).await?;
    match controlled.result.as_str() {
        "not_found" => Err(Error::NotFound(format!("run {id}"))),
        "conflict" => Err(Error::Conflict(refusal(control, &controlled))),
        _ => {
            wake(&ctx.queue, std::mem::take(&mut controlled.ready)).await;
            Ok(controlled)
        }
    }
}

fn refusal(control: Control, controlled: &Controlled) -> String {
    let status = controlled.status.map_or("unknown".to_owned(), |status| format!("{status:?}").to_lowercase());
    match control {
        Control::Retry => format!("only a failed or cancelled run can be retried; this one is {status}"),
        Control::Cancel => format!("the run has ended already: it is {status}"),
        Control::Pause | Control::Resume => format!("the run has ended: it is {status}"),
    }
}
