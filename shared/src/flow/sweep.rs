//! Recovery of stalled runs and steps. Takes no input. Several sweeps may run concurrently.

use std::time::Instant;

use serde::Serialize;
use tracing::info;

use crate::context::Ctx;
use crate::db::sweep::{self, Sweep, SweepRecord};
use crate::error::Error;
use crate::telemetry;

/// Maximum number of rows that one round recovers (for wake-ups: of each handler).
const LIMIT: i32 = 500;
/// Maximum number of rounds for one kind. The next sweep does the rest.
const ROUNDS: usize = 20;

/// Result of a sweep, by kind.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub runs_timed_out: u64,
    pub gates_expired: u64,
    pub leases_ended: u64,
    pub calls_settled: u64,
    pub budgets_passed: u64,
    pub wakeups_sent: u64,
}

/// Sweeps every kind once, and records that. If one fails, the others are still swept. Logs each failure and returns the
/// last one.
pub async fn sweep(ctx: &Ctx) -> Result<Report, Error> {
    let start = Instant::now();
    let mut report = Report::default();
    let mut failure = None;
    for kind in Sweep::ALL {
        match sweep_kind(ctx, kind).await {
            Ok(0) => {}
            Ok(done) => {
                info!(kind = kind.name(), done, "swept");
                match kind {
                    Sweep::Runs => report.runs_timed_out = done,
                    Sweep::Gates => report.gates_expired = done,
                    Sweep::Leases => report.leases_ended = done,
                    Sweep::Calls => report.calls_settled = done,
                    Sweep::Budgets => report.budgets_passed = done,
                    Sweep::WakeUps => report.wakeups_sent = done,
                }
            }
            Err(error) => {
                telemetry::report(&error, &format!("sweep {}", kind.name()));
                failure = Some(error);
            }
        }
    }
    let record = SweepRecord {
        tenant_id: &ctx.config.tenant,
        duration_ms: start.elapsed().as_millis(),
        failed: failure.is_some(),
        report: &report,
    };
    // The record is only for readers.
    if let Err(error) = sweep::sweep_record(&ctx.db, &record).await {
        telemetry::report(&error, "record a sweep");
    }
    failure.map_or(Ok(report), Err)
}

async fn sweep_kind(ctx: &Ctx, kind: Sweep) -> Result<u64, Error> {
    let mut done = 0;
    for _ in 0..ROUNDS {
        let swept = sweep::sweep(&ctx.db, kind, LIMIT).await?;
        done += swept.done;
        ctx.queue.send(swept.ready).await?;
        if swept.done < u64::from(LIMIT.unsigned_abs()) {
            break;
        }
    }
    Ok(done)
}
