//! `cost`: US dollars per million steps, from counted calls and the price list in `prices.json`.
//!
//! Counted are the calls of the control plane: the work of handlers (models, tools, their artifacts) has its own price.
//! The database is a subscription; its round trips are counted, not priced.

use anyhow::{Context, Result};
use nofx::checkout::Checkout;
use nofx::report;
use serde::Deserialize;
use serde_json::json;

use crate::figures::{self, float, rounded};
use crate::load::{Load, Measured, STEPS_PER_RUN};
use crate::server::Server;
use crate::smoke;

const LOADS: [(u64, usize); 2] = [(500, 50), (100, 1)];
/// Runs before the clock starts.
const WARM_UP: u64 = 50;
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

/// What a laptop cannot tell: distances inside a region, and what a line of a log weighs.
#[derive(Deserialize, serde::Serialize)]
struct Assumptions {
    memory_mb: f64,
    database_round_trip_ms: f64,
    sqs_send_ms: f64,
    log_bytes_per_invocation: f64,
    log_bytes_per_step: f64,
}

/// Calls per step.
#[derive(Default)]
struct Calls {
    lambda_requests: f64,
    /// On this machine; distances are added.
    billed_ms: f64,
    sqs_sends: f64,
    sqs_receives: f64,
    sqs_deletes: f64,
    database_round_trips: f64,
    s3_puts: f64,
    s3_gets: f64,
}

pub async fn run(server: &Server, checkout: &Checkout) -> Result<()> {
    let list: PriceList = serde_json::from_str(PRICES).context("perf/prices.json")?;
    let mut alone = Calls::default();
    for (runs, conc) in LOADS {
        report::line("cost", format_args!("{runs} runs of {STEPS_PER_RUN} steps, {conc} in flight"));
        let database = server.create_database().await?;
        let load = Load::new(&database, conc)?;
        load.measure(WARM_UP, conc).await?;
        let calls = calls_of(&load.measure(runs, conc).await?, float(runs * STEPS_PER_RUN));
        drop(load);
        server.drop_database(database).await?;
        list.print(&format!("engine, {conc} in flight"), &calls);
        alone = calls;
    }
    match smoke_calls(checkout, &alone).await {
        Ok(calls) => list.print("sample plans", &calls),
        Err(error) => report::line("cost", format_args!("the sample plans are left out: {error:#}")),
    }
    Ok(())
}

fn calls_of(measured: &Measured, steps: f64) -> Calls {
    let invocations = float(measured.invocations) / steps;
    let round_trips = float(measured.round_trips) / steps;
    Calls {
        lambda_requests: invocations,
        billed_ms: float(measured.billed_ms) / steps,
        // Each finish sends what it made ready in one call; the last one of a run makes nothing ready.
        sqs_sends: round_trips - invocations,
        sqs_receives: invocations,
        sqs_deletes: invocations,
        database_round_trips: round_trips,
        ..Calls::default()
    }
}

/// Calls of the sample plans, from their timelines: an invocation for each attempt, a wake-up for each ready step. What
/// the loop around an attempt takes is known from runs alone.
async fn smoke_calls(checkout: &Checkout, alone: &Calls) -> Result<Calls> {
    let api = smoke::api().await?;
    let (mut attempts, mut sends, mut artifacts, mut gates) = (0, 0, 0, 0);
    for plan in &smoke::PLANS {
        report::line("cost", plan.file);
        let timeline = smoke::run_plan(&api, checkout, plan).await?;
        attempts += timeline.count("step.started");
        sends += timeline.count("step.ready");
        artifacts += timeline.count("artifact.created");
        gates += timeline.count("gate.passed");
    }
    let per_step = |count: u64| float(count) / float(attempts.max(1));
    Ok(Calls {
        lambda_requests: 1.0,
        billed_ms: alone.billed_ms,
        sqs_sends: per_step(sends),
        sqs_receives: 1.0,
        sqs_deletes: 1.0,
        database_round_trips: 2.0,
        s3_puts: per_step(artifacts),
        // A gate fetches the archive that it judges.
        s3_gets: per_step(gates),
    })
}

impl PriceList {
    fn print(&self, load: &str, calls: &Calls) {
        let (usd, assumed) = (&self.usd, &self.assumptions);
        let billed_ms = calls.billed_ms
            + calls.database_round_trips * assumed.database_round_trip_ms
            + calls.sqs_sends * assumed.sqs_send_ms;
        let sqs = calls.sqs_sends + calls.sqs_receives + calls.sqs_deletes;
        let log_bytes = calls.lambda_requests * assumed.log_bytes_per_invocation + assumed.log_bytes_per_step;
        // A million steps at so much a million requests: the millions cancel out.
        let requests = calls.lambda_requests * usd.lambda_requests_per_million;
        let compute = billed_ms * 1_000.0 * (assumed.memory_mb / 1_024.0) * usd.lambda_gb_second;
        let queues = sqs * usd.sqs_requests_per_million;
        let logs = log_bytes / 1_000.0 * usd.logs_per_gb;
        let artifacts = calls.s3_puts * usd.s3_puts_per_million + calls.s3_gets * usd.s3_gets_per_million;
        figures::print(&json!({
            "bench": "cost",
            "load": load,
            "usd_per_million_steps": rounded(requests + compute + queues + logs),
            "usd": {
                "lambda_requests": rounded(requests), "lambda_compute": rounded(compute),
                "sqs": rounded(queues), "logs": rounded(logs),
            },
            "handlers_usd": { "s3": rounded(artifacts) },
            "per_step": {
                "lambda_requests": rounded(calls.lambda_requests), "billed_ms": rounded(billed_ms),
                "sqs_sends": rounded(calls.sqs_sends), "sqs_receives": rounded(calls.sqs_receives),
                "sqs_deletes": rounded(calls.sqs_deletes),
                "database_round_trips": rounded(calls.database_round_trips),
                "s3_puts": rounded(calls.s3_puts), "s3_gets": rounded(calls.s3_gets),
            },
            "assumptions": assumed,
            "prices": self.source,
        }));
    }
}
