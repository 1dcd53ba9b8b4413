//! A load of echo chains with a given number of runs in flight. Invocations of the echo function execute it.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use echo::Echo;
use futures::future::try_join_all;
use nofx_local::database;
use serde_json::{Value, json};
use shared::context::Ctx;
use shared::domain::{ClaimedStep, Outcome, RunId, tool};
use shared::flow::create_run::{Request, create_run};
use shared::storage::StepStore;
use shared::worker::{Handler, WorkThenRecord, Worker};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::lambda::{self, EventSource, session};
use crate::server::Database;
use crate::stats::Times;

/// Lambda's event source of a standard queue starts with this number of concurrent batches.
const POLLERS: usize = 5;
pub const STEPS_PER_RUN: u64 = 5;

/// The result of a load.
pub struct Measured {
    pub seconds: f64,
    pub run_times: Times,
    /// Statements of the workers, without those of the requests that created the runs.
    pub round_trips: u64,
    pub wal_bytes: u64,
    pub invocations: u64,
    pub messages: u64,
    /// Wall time of the invocations, each rounded up to a millisecond as AWS bills it.
    pub billed_ms: u64,
    /// The same for the requests that created the runs.
    pub api_billed_ms: u64,
}

/// Tracks the runs in flight, and counts invocations and their time.
#[derive(Default)]
struct RunTracker {
    runs: Mutex<HashMap<RunId, RunState>>,
    invocations: AtomicU64,
    messages: AtomicU64,
    billed_ms: AtomicU64,
    api_billed_ms: AtomicU64,
}

enum RunState {
    Waiting(oneshot::Sender<()>),
    Finished,
}

impl RunTracker {
    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, RunState>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an invocation and the runs that finished in it.
    fn record(&self, messages: usize, finished: Vec<RunId>, duration: Duration) {
        self.invocations.fetch_add(1, Ordering::Relaxed);
        self.messages.fetch_add(u64::try_from(messages).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.billed_ms.fetch_add(billed_ms(duration), Ordering::Relaxed);
        let mut runs = self.runs();
        for run in finished {
            if let Some(RunState::Waiting(waiter)) = runs.insert(run, RunState::Finished) {
                let _ = waiter.send(());
            }
        }
    }

    /// Waits for the end of the invocation that runs a run's last step.
    async fn wait_for(&self, run: RunId) -> Result<()> {
        let (sender, finished) = oneshot::channel();
        // The workers may finish the run before its creator gets the response.
        if let Some(RunState::Finished) = self.runs().insert(run, RunState::Waiting(sender)) {
            return Ok(());
        }
        finished.await.context("the load ended before the run")
    }
}

/// An echo handler that records each run whose last step it handles. So the benchmark sees the end of a run without a
/// query.
#[derive(Clone, Default)]
struct RecordingEcho(Arc<Mutex<Vec<RunId>>>);

impl RecordingEcho {
    fn take(&self) -> Vec<RunId> {
        mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Handler for RecordingEcho {
    async fn handle(&self, step: &ClaimedStep, store: &StepStore) -> Outcome {
        if step.name == step_name(STEPS_PER_RUN - 1) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step.run_id);
        }
        Echo.handle(step, store).await
    }
}

/// A load of echo chains on one database.
pub struct Load {
    api: Ctx,
    workers: Vec<Ctx>,
    event_source: EventSource,
    url: String,
    tracker: Arc<RunTracker>,
    plan: Value,
}

impl Load {
    /// Supports up to `conc` runs in flight. The API gets a pool of that size, because Lambda runs one instance per
    /// concurrent request.
    pub fn new(database: &Database, conc: usize) -> Result<Self> {
        let (queue, event_source) = lambda::queue();
        let worker = || lambda::context(&database.url, &queue, lambda::WORKER_POOL_SIZE);
        Ok(Self {
            api: lambda::context(&database.url, &queue, conc)?,
            workers: (0..POLLERS).map(|_| worker()).collect::<Result<_>>()?,
            event_source,
            url: database.url.clone(),
            tracker: Arc::default(),
            plan: chain(STEPS_PER_RUN),
        })
    }

    /// Runs `runs` chains with `conc` in flight. Each must succeed with one attempt per step.
    pub async fn measure(&self, runs: u64, conc: usize) -> Result<Measured> {
        let admin = database::connect(&self.url).await?;
        let round_trips = || self.workers.iter().map(|ctx| ctx.db.round_trips()).sum::<u64>();
        let (round_trips_before, wal_before) = (round_trips(), wal_position(&admin).await?);
        let counts = || {
            let tracker = &self.tracker;
            let counters = [&tracker.invocations, &tracker.messages, &tracker.billed_ms, &tracker.api_billed_ms];
            counters.map(|count| count.load(Ordering::Relaxed))
        };
        let counts_before = counts();

        let mut pollers = JoinSet::new();
        for ctx in &self.workers {
            pollers.spawn(poll(self.event_source.clone(), ctx.clone(), self.tracker.clone()));
        }
        let start = Instant::now();
        let next = AtomicU64::new(0);
        let clients = try_join_all((0..conc).map(|_| async {
            let mut times = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < runs {
                times.push(self.run_one().await?);
            }
            Ok::<_, anyhow::Error>(times)
        }));
        let times = tokio::select! {
            times = clients => times?,
            Some(ended) = pollers.join_next() => { ended??; anyhow::bail!("a poller ended") }
        };
        let seconds = start.elapsed().as_secs_f64();
        pollers.shutdown().await;

        let mut run_times = Times::default();
        run_times.extend(times.into_iter().flatten());
        let wal_bytes = wal_position(&admin).await? - wal_before;
        check(&admin).await?;
        Ok(Measured {
            seconds,
            run_times,
            round_trips: round_trips() - round_trips_before,
            wal_bytes,
            invocations: counts()[0] - counts_before[0],
            messages: counts()[1] - counts_before[1],
            billed_ms: counts()[2] - counts_before[2],
            api_billed_ms: counts()[3] - counts_before[3],
        })
    }

    /// Creates a run and waits for its end.
    async fn run_one(&self) -> Result<Duration> {
        let start = Instant::now();
        let request = Request { body: &self.plan, idempotency_key: None, traceparent: None, actor: None };
        let accepted = create_run(&self.api, &session(&self.api), &request).await?;
        self.tracker.api_billed_ms.fetch_add(billed_ms(start.elapsed()), Ordering::Relaxed);
        self.tracker.wait_for(accepted.id).await?;
        Ok(start.elapsed())
    }
}

fn billed_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

async fn poll(event_source: EventSource, ctx: Ctx, tracker: Arc<RunTracker>) -> Result<()> {
    let spec = tool::handler("echo").context("no handler echo")?;
    let echo = RecordingEcho::default();
    let worker = Worker::new(ctx, spec, WorkThenRecord(echo.clone()));
    loop {
        let batch = event_source.receive().await;
        let event = lambda::event(&batch)?;
        let start = Instant::now();
        let response = worker.handle_batch(event, None).await;
        ensure!(response.batch_item_failures.is_empty(), "a message of the batch failed");
        tracker.record(batch.len(), echo.take(), start.elapsed());
    }
}

fn step_name(index: u64) -> String {
    format!("s{index}")
}

/// A plan of echo steps. Each repeats the output of the previous one.
pub fn chain(steps: u64) -> Value {
    let step = |index: u64| {
        let text = match index {
            0 => json!("hello"),
            _ => json!(format!("${{{{ steps.{}.outputs.text }}}}", step_name(index - 1))),
        };
        json!({"name": step_name(index), "tool": "echo", "inputs": {"text": text}})
    };
    json!({"plan": {"goal": "benchmark", "steps": (0..steps).map(step).collect::<Vec<_>>()}})
}

async fn wal_position(admin: &Client) -> Result<u64> {
    let sql = "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
    let rows = admin.query_typed(sql, &[]).await?;
    Ok(u64::try_from(rows.first().context("no WAL position")?.try_get::<_, i64>(0)?)?)
}

/// Checks that every step of every run succeeded at its first attempt: a fast run must not lose or repeat work.
async fn check(admin: &Client) -> Result<()> {
    let sql = "select (select count(*) from nofx.run where status <> 'succeeded')
                    + (select count(*) from nofx.step where status <> 'succeeded' or attempt <> 1)
                    + (select count(*) from nofx.attempt where status <> 'succeeded')";
    let failed: i64 = admin.query_typed(sql, &[]).await?.first().context("no count")?.try_get(0)?;
    ensure!(failed == 0, "{failed} runs, steps or attempts did not succeed at the first attempt");
    Ok(())
}
