//! Attempts whose folder in the storage may have objects that no artifact names.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::{Json, Type};

use super::pool::Database;
use crate::domain::{RunId, StepId, TenantId};
use crate::error::Error;

/// An attempt that failed, was cancelled, or lost its worker, and that cannot write any more.
#[derive(Debug, Clone, Deserialize)]
pub struct Leftover {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub step_id: StepId,
    pub attempt: u32,
    /// The URIs of all artifacts of the step.
    pub named: BTreeSet<String>,
}

/// Takes at most `limit` attempts that are due. Each is the caller's for ten minutes, and longer after each try.
pub async fn leftovers_take(db: &Database, limit: i32) -> Result<Vec<Leftover>, Error> {
    let taken: Option<Json<Vec<Leftover>>> =
        db.query_value("select nofx.leftovers_take($1)", &[(&limit, Type::INT4)]).await?;
    Ok(taken.map(|json| json.0).unwrap_or_default())
}

/// Forgets an attempt whose folder has nothing but artifacts.
pub async fn leftover_forget(db: &Database, leftover: &Leftover) -> Result<(), Error> {
    #[derive(Debug, Serialize)]
    struct Call<'a> {
        tenant_id: &'a TenantId,
        step_id: StepId,
        attempt: u32,
    }
    let Leftover { tenant_id, step_id, attempt, .. } = leftover;
    let call = Call { tenant_id, step_id: *step_id, attempt: *attempt };
    db.transition::<Value>("select nofx.leftover_forget($1)", &call).await.map(|_| ())
}
