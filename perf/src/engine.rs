//! `engine`: steps per second through the worker's entry points, and the latency of a single run.

use anyhow::Result;
use nofx_local::report;
use serde_json::json;

use crate::load::{Load, Measured, STEPS_PER_RUN};
use crate::server::Server;
use crate::stats::{self, float, rounded};

/// Number of runs, and number of runs in flight.
pub const LOADS: [(u64, usize); 2] = [(1_000, 50), (200, 1)];
/// Runs before the measurement, because nearly every invocation on AWS runs in a warm function.
pub const WARM_UP_RUNS: u64 = 100;

pub async fn run(server: &Server) -> Result<()> {
    for (runs, conc) in LOADS {
        report::line("engine", format_args!("{runs} runs of {STEPS_PER_RUN} steps, {conc} in flight"));
        let measured = measure(server, runs, conc).await?;
        let steps = float(runs * STEPS_PER_RUN);
        stats::print(&json!({
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
    load.measure(WARM_UP_RUNS, conc).await?;
    let measured = load.measure(runs, conc).await?;
    drop(load);
    server.drop_database(database).await?;
    Ok(measured)
}
