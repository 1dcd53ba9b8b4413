//! What the sweeper asks of the database.

use serde::Deserialize;
use tokio_postgres::types::{Json, Type};

use super::pool::Database;
use crate::domain::WakeUp;
use crate::error::Error;

/// What one sweep did.
#[derive(Debug, Default, Deserialize)]
pub struct Swept {
    /// How many things it found to do.
    pub done: u64,
    pub ready: Vec<WakeUp>,
}

/// Things that stall, and are recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Attempts whose lease is over.
    Leases,
    /// Gates that nobody decided in time.
    Gates,
    /// Runs whose time is over.
    Runs,
    /// Ready steps that are owed a wake-up.
    WakeUps,
}

impl Sweep {
    /// All of them, in an order in which what one makes ready the last one may wake.
    pub const ALL: [Self; 4] = [Self::Runs, Self::Gates, Self::Leases, Self::WakeUps];

    /// For the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leases => "leases",
            Self::Gates => "gates",
            Self::Runs => "runs",
            Self::WakeUps => "wakeups",
        }
    }
}

/// Recovers at most `limit` things (wake-ups: for each handler).
pub async fn sweep(db: &Database, sweep: Sweep, limit: i32) -> Result<Swept, Error> {
    let sql = match sweep {
        Sweep::Leases => "select nofx.sweep_leases($1)",
        Sweep::Gates => "select nofx.sweep_gates($1)",
        Sweep::Runs => "select nofx.sweep_runs($1)",
        Sweep::WakeUps => "select nofx.sweep_wakeups($1)",
    };
    let swept: Option<Json<Swept>> = db.query_value(sql, &[(&limit, Type::INT4)]).await?;
    Ok(swept.map(|json| json.0).unwrap_or_default())
}
