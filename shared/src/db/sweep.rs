//! Calls of the sweep functions.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::{Json, Type};

use super::pool::Database;
use crate::domain::{TenantId, WakeUp};
use crate::error::Error;

/// Result of one sweep.
#[derive(Debug, Default, Deserialize)]
pub struct Swept {
    /// Number of rows that it recovered.
    pub done: u64,
    pub ready: Vec<WakeUp>,
}

/// A sweep that has ended.
#[derive(Debug, Serialize)]
pub struct SweepRecord<'a, R> {
    /// The tenant of the deployment. The sweep is about all tenants.
    pub tenant_id: &'a TenantId,
    pub duration_ms: u128,
    pub failed: bool,
    pub report: &'a R,
}

/// What can stall and is recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Attempts whose lease has ended.
    Leases,
    /// Gates that have expired.
    Gates,
    /// Runs whose deadline has passed.
    Runs,
    /// Model calls whose worker never said how they ended.
    Calls,
    /// Gates that wait for money which a budget has again.
    Budgets,
    /// Ready steps that need another wake-up.
    WakeUps,
}

impl Sweep {
    /// All kinds. Wake-ups come last, for steps that the others made ready.
    pub const ALL: [Self; 6] = [Self::Runs, Self::Gates, Self::Leases, Self::Calls, Self::Budgets, Self::WakeUps];

    /// For the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leases => "leases",
            Self::Gates => "gates",
            Self::Runs => "runs",
            Self::Calls => "calls",
            Self::Budgets => "budgets",
            Self::WakeUps => "wakeups",
        }
    }
}

/// Recovers at most `limit` rows (for wake-ups: of each handler).
pub async fn sweep(db: &Database, sweep: Sweep, limit: i32) -> Result<Swept, Error> {
    let sql = match sweep {
        Sweep::Leases => "select nofx.sweep_leases($1)",
        Sweep::Gates => "select nofx.sweep_gates($1)",
        Sweep::Runs => "select nofx.sweep_runs($1)",
        Sweep::Calls => "select nofx.sweep_calls($1)",
        Sweep::Budgets => "select nofx.sweep_budgets($1)",
        Sweep::WakeUps => "select nofx.sweep_wakeups($1)",
    };
    let swept: Option<Json<Swept>> = db.query_value(sql, &[(&limit, Type::INT4)]).await?;
    Ok(swept.map(|json| json.0).unwrap_or_default())
}

/// Records the last sweep of the deployment.
pub async fn sweep_record<R: Serialize + Sync + Debug>(
    db: &Database,
    record: &SweepRecord<'_, R>,
) -> Result<(), Error> {
    db.transition::<Value>("select nofx.sweep_record($1)", record).await.map(|_| ())
}
