//! `engine`: steps per second through the worker's entry points, and the time of a run that is alone.

use anyhow::Result;
use nofx_local::report;
use serde_json::json;

use crate::figures::{self, float, rounded};
use crate::load::{Load, Measured, STEPS_PER_RUN};
use crate::server::Server;

/// Number of runs, and how many of them are in flight.
pub const LOADS: [(u64, usize); 2] = [(1_000, 50), (200, 1)];
/// Runs before the measurement, because nearly every invocation on AWS finds a warm function.
pub const WARM_UP: u64 = 100;

pub async fn run(server: &Server) -> Result<()> {
    for (runs, conc) in LOADS {
        report::line("engine", format_args!("{runs} runs of {STEPS_PER_RUN} steps, {conc} in flight"));
        let measured = measure(server, runs, conc).await?;
        let steps = float(runs * STEPS_PER_RUN);
        figures::print(&json!({
            "bench": "engine",
            "runs": runs,
            "steps_per_run": STEPS_PER_RUN,
            "conc": conc,
            "seconds": rounded(measured.seconds),
            "steps_per_s": rounded(steps / measured.seconds),
            "run_p50_ms": rounded(measured.run_times.percentile_ms(50)),
            "run_p99_ms": rounded(measured.run_times.percentile_ms(99)),
            "round_trips_per_step": rounded(float(measured.round_trips) / steps),
            "wal_bytes_per_step": rounded(float(measured.wal_bytes) / steps),
            "steps_per_invocation": rounded(steps / float(measured.invocations)),
        }));
    }
    Ok(())
}

/// Measures one load on a new database.
pub async fn measure(server: &Server, runs: u64, conc: usize) -> Result<Measured> {
    let database = server.create_database().await?;
    let load = Load::new(&database, conc)?;
    load.measure(WARM_UP, conc).await?;
    let measured = load.measure(runs, conc).await?;
    drop(load);
    server.drop_database(database).await?;
    Ok(measured)
}
