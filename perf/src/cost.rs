//! `cost`: US dollars per million steps, from counted calls and the price list in `prices.json`.
//!
//! It counts the calls of the control plane, including the requests that create runs and decide gates. It prices the
//! handlers' own work (their time and artifacts) separately. The database is a subscription, so its round trips are
//! counted but not priced.

use anyhow::{Context, Result};
use nofx::client::api::Api;
use nofx_local::checkout::Checkout;
use nofx_local::report;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::load::{Load, Measured, STEPS_PER_RUN};
use crate::server::Server;
use crate::smoke::{self, SmokeStack};
use crate::stats::{self, float, rounded};

const LOADS: [(u64, usize); 2] = [(500, 50), (100, 1)];
/// Runs before the measurement.
const WARM_UP_RUNS: u64 = 50;
const PRICES: &str = include_str!("../prices.json");

#[derive(Deserialize)]
struct PriceList {
    source: String,
    usd: Prices,
    assumptions: Assumptions,
}

#[derive(Deserialize)]
struct Prices {
    lambda_requests_per_million: f64,
    lambda_gb_second: f64,
    sqs_requests_per_million: f64,
    s3_puts_per_million: f64,
    s3_gets_per_million: f64,
    logs_per_gb: f64,
}

/// Values that a laptop cannot measure: latencies inside a region and sizes of logs. The memory sizes are those of the
/// template.
#[derive(Deserialize, Serialize)]
struct Assumptions {
    memory_mb: MemoryMb,
    database_round_trip_ms: f64,
    sqs_send_ms: f64,
    log_bytes_per_invocation: f64,
    log_bytes_per_step: f64,
}

#[derive(Deserialize, Serialize)]
struct MemoryMb {
    gate: f64,
    gate_runner: f64,
    other: f64,
}

/// Calls per step.
#[derive(Default)]
struct Calls {
    lambda_requests: f64,
    /// Average memory size of the functions.
    memory_mb: f64,
    /// Measured on this machine, without the handlers' own work. `print` adds the assumed latencies.
    billed_ms: f64,
    /// The handlers' own work in GB x s, measured on this machine.
    handlers_gb_s: f64,
    sqs_sends: f64,
    sqs_receives: f64,
    sqs_deletes: f64,
    database_round_trips: f64,
    s3_puts: f64,
    s3_gets: f64,
}

pub async fn run(server: &Server, checkout: &Checkout) -> Result<()> {
    let list: PriceList = serde_json::from_str(PRICES).context("perf/prices.json")?;
    let mut single_run = Calls::default();
    for (runs, conc) in LOADS {
        report::line("cost", format_args!("{runs} runs of {STEPS_PER_RUN} steps, {conc} in flight"));
        let database = server.create_database().await?;
        let load = Load::new(&database, conc)?;
        load.measure(WARM_UP_RUNS, conc).await?;
        let memory_mb = list.assumptions.memory_mb.other;
        let calls = calls_of(&load.measure(runs, conc).await?, float(runs * STEPS_PER_RUN), memory_mb);
        drop(load);
        server.drop_database(database).await?;
        list.print(&format!("engine, {conc} in flight"), &calls);
        single_run = calls;
    }
    let stack = SmokeStack::find_or_start(checkout).await?;
    let calls = smoke_calls(&stack.api, checkout, &list.assumptions.memory_mb, &single_run).await;
    stack.stop(calls.is_ok()).await;
    list.print("sample plans", &calls?);
    Ok(())
}

fn calls_of(measured: &Measured, steps: f64, memory_mb: f64) -> Calls {
    let invocations = float(measured.invocations) / steps;
    let round_trips = float(measured.round_trips) / steps;
    let posts = 1.0 / float(STEPS_PER_RUN);
    Calls {
        lambda_requests: invocations + posts,
        memory_mb,
        billed_ms: float(measured.billed_ms + measured.api_billed_ms) / steps,
        // Creating a run sends each message with a separate call.
        sqs_sends: float(measured.messages) / steps,
        sqs_receives: invocations,
        sqs_deletes: invocations,
        database_round_trips: round_trips + posts,
        ..Calls::default()
    }
}

/// Calls of the sample plans, from their timelines. The overhead per attempt comes from the load with one run in flight.
async fn smoke_calls(api: &Api, checkout: &Checkout, memory_mb: &MemoryMb, single_run: &Calls) -> Result<Calls> {
    let (mut attempts, mut gate_attempts, mut messages, mut requests, mut artifacts, mut gb_s) = (0, 0, 0, 0, 0, 0.0);
    for plan in &smoke::PLANS {
        report::line("cost", plan.file);
        // The first run may install tools, so it is not measured.
        smoke::run_plan(api, checkout, plan).await?;
        let timeline = smoke::run_plan(api, checkout, plan).await?;
        for attempt in timeline.attempts() {
            attempts += 1;
            messages += u64::from(attempt.wait.is_some());
            let is_gate = attempt.handler == "gate";
            gate_attempts += u64::from(is_gate);
            // `gate` waits while `gate_runner` works, so both are billed.
            let memory_mb = if is_gate { memory_mb.gate + memory_mb.gate_runner } else { memory_mb.other };
            gb_s += attempt.work.as_secs_f64() * memory_mb / 1_024.0;
        }
        artifacts += timeline.count("artifact.created");
        // One request creates the run, and one decides each gate.
        requests += 1 + timeline.count("gate.created");
    }
    let steps = float(attempts.max(1));
    let per_step = |count: u64| float(count) / steps;
    Ok(Calls {
        // One message per invocation, because these plans do not fill batches. Each gate also invokes `gate_runner`.
        lambda_requests: per_step(messages + requests + gate_attempts),
        memory_mb: memory_mb.other + (memory_mb.gate - memory_mb.other) * per_step(gate_attempts),
        billed_ms: single_run.billed_ms,
        handlers_gb_s: gb_s / steps,
        sqs_sends: per_step(messages),
        sqs_receives: per_step(messages),
        sqs_deletes: per_step(messages),
        // One claim per message, and one finish per attempt.
        database_round_trips: per_step(messages + attempts + requests),
        // `gate_runner` stores one result for each gate.
        s3_puts: per_step(artifacts + gate_attempts),
        // Both functions download the archive, and `gate` the result.
        s3_gets: per_step(3 * gate_attempts),
    })
}

impl PriceList {
    fn print(&self, load: &str, calls: &Calls) {
        let (usd, assumptions) = (&self.usd, &self.assumptions);
        let billed_ms = calls.billed_ms
            + calls.database_round_trips * assumptions.database_round_trip_ms
            + calls.sqs_sends * assumptions.sqs_send_ms;
        let sqs = calls.sqs_sends + calls.sqs_receives + calls.sqs_deletes;
        let log_bytes = calls.lambda_requests * assumptions.log_bytes_per_invocation + assumptions.log_bytes_per_step;
        // Requests per step times the price per million requests is the price per million steps.
        let requests = calls.lambda_requests * usd.lambda_requests_per_million;
        let compute = billed_ms * 1_000.0 * (calls.memory_mb / 1_024.0) * usd.lambda_gb_second;
        let work = calls.handlers_gb_s * 1_000_000.0 * usd.lambda_gb_second;
        let queues = sqs * usd.sqs_requests_per_million;
        let logs = log_bytes / 1_000.0 * usd.logs_per_gb;
        let artifacts = calls.s3_puts * usd.s3_puts_per_million + calls.s3_gets * usd.s3_gets_per_million;
        stats::print(&json!({
            "bench": "cost",
            "load": load,
            "usd_per_million_steps": rounded(requests + compute + queues + logs),
            "usd": {
                "lambda_requests": rounded(requests), "lambda_compute": rounded(compute),
                "sqs": rounded(queues), "logs": rounded(logs),
            },
            "handlers_usd": { "lambda_compute": rounded(work), "s3": rounded(artifacts) },
            "per_step": {
                "lambda_requests": rounded(calls.lambda_requests), "billed_ms": rounded(billed_ms),
                "sqs_sends": rounded(calls.sqs_sends), "sqs_receives": rounded(calls.sqs_receives),
                "sqs_deletes": rounded(calls.sqs_deletes),
                "database_round_trips": rounded(calls.database_round_trips),
                "s3_puts": rounded(calls.s3_puts), "s3_gets": rounded(calls.s3_gets),
            },
            "assumptions": assumptions,
            "prices": self.source,
        }));
    }
}
