//! A load of echo chains with a given number of runs in flight, executed by invocations of the echo function.

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

use crate::bed::{self, Source};
use crate::figures::Times;
use crate::server::Database;

/// Number of concurrent batches with which Lambda's event source of a standard queue starts.
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
    /// The same of the requests that created the runs.
    pub api_billed_ms: u64,
}

/// Runs in flight, and the time of their invocations.
#[derive(Default)]
struct Board {
    runs: Mutex<HashMap<RunId, Progress>>,
    invocations: AtomicU64,
    messages: AtomicU64,
    billed_ms: AtomicU64,
    api_billed_ms: AtomicU64,
}

enum Progress {
    Awaited(oneshot::Sender<()>),
    Ended,
}

impl Board {
    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, Progress>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an invocation that ended, and the runs that ended in it.
    fn note(&self, messages: usize, ended: Vec<RunId>, took: Duration) {
        self.invocations.fetch_add(1, Ordering::Relaxed);
        self.messages.fetch_add(u64::try_from(messages).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.billed_ms.fetch_add(billed_ms(took), Ordering::Relaxed);
        let mut runs = self.runs();
        for run in ended {
            if let Some(Progress::Awaited(waiter)) = runs.insert(run, Progress::Ended) {
                let _ = waiter.send(());
            }
        }
    }

    /// Waits until the invocation of a run's last step is over.
    async fn ended(&self, run: RunId) -> Result<()> {
        let (sender, ended) = oneshot::channel();
        // The workers may have ended the run before its creator got the answer.
        if let Some(Progress::Ended) = self.runs().insert(run, Progress::Awaited(sender)) {
            return Ok(());
        }
        ended.await.context("the run was lost")
    }
}

/// Echo that records each run whose last step it got, so that its end is known without a query.
#[derive(Clone, Default)]
struct NotingEcho(Arc<Mutex<Vec<RunId>>>);

impl NotingEcho {
    fn take(&self) -> Vec<RunId> {
        mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Handler for NotingEcho {
    async fn handle(&self, step: &ClaimedStep, store: &StepStore) -> Outcome {
        if step.name == step_name(STEPS_PER_RUN - 1) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step.run_id);
        }
        Echo.handle(step, store).await
    }
}

/// Echo chains on one database.
pub struct Load {
    api: Ctx,
    workers: Vec<Ctx>,
    source: Source,
    url: String,
    board: Arc<Board>,
    plan: Value,
}

impl Load {
    /// For up to `conc` runs in flight. The API gets a pool of that size, because Lambda runs one instance per
    /// concurrent request.
    pub fn new(database: &Database, conc: usize) -> Result<Self> {
        let (queue, source) = bed::queue();
        let worker = || bed::context(&database.url, &queue, bed::WORKER_POOL);
        Ok(Self {
            api: bed::context(&database.url, &queue, conc)?,
            workers: (0..POLLERS).map(|_| worker()).collect::<Result<_>>()?,
            source,
            url: database.url.clone(),
            board: Arc::default(),
            plan: chain(STEPS_PER_RUN),
        })
    }

    /// Runs `runs` chains with `conc` in flight. Each must succeed with one attempt per step.
    pub async fn measure(&self, runs: u64, conc: usize) -> Result<Measured> {
        let admin = database::connect(&self.url).await?;
        let round_trips = || self.workers.iter().map(|ctx| ctx.db.round_trips()).sum::<u64>();
        let (before, wal_before) = (round_trips(), wal_position(&admin).await?);
        let counted = || {
            let board = &self.board;
            let counts = [&board.invocations, &board.messages, &board.billed_ms, &board.api_billed_ms];
            counts.map(|count| count.load(Ordering::Relaxed))
        };
        let counted_before = counted();

        let mut pollers = JoinSet::new();
        for ctx in &self.workers {
            pollers.spawn(poll(self.source.clone(), ctx.clone(), self.board.clone()));
        }
        let start = Instant::now();
        let next = AtomicU64::new(0);
        let clients = try_join_all((0..conc).map(|_| async {
            let mut times = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < runs {
                times.push(self.one().await?);
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
            round_trips: round_trips() - before,
            wal_bytes,
            invocations: counted()[0] - counted_before[0],
            messages: counted()[1] - counted_before[1],
            billed_ms: counted()[2] - counted_before[2],
            api_billed_ms: counted()[3] - counted_before[3],
        })
    }

    /// Creates a run and waits for its end.
    async fn one(&self) -> Result<Duration> {
        let start = Instant::now();
        let request = Request { body: &self.plan, idempotency_key: None, traceparent: None };
        let accepted = create_run(&self.api, &self.api.config.tenant, &request).await?;
        self.board.api_billed_ms.fetch_add(billed_ms(start.elapsed()), Ordering::Relaxed);
        self.board.ended(accepted.id).await?;
        Ok(start.elapsed())
    }
}

fn billed_ms(took: Duration) -> u64 {
    u64::try_from(took.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

async fn poll(source: Source, ctx: Ctx, board: Arc<Board>) -> Result<()> {
    let spec = tool::handler("echo").context("no handler echo")?;
    let echo = NotingEcho::default();
    let worker = Worker::new(ctx, spec, WorkThenRecord(echo.clone()));
    loop {
        let batch = source.receive().await;
        let event = bed::event(&batch)?;
        let start = Instant::now();
        let response = worker.handle_batch(event, None).await;
        ensure!(response.batch_item_failures.is_empty(), "a batch came back");
        board.note(batch.len(), echo.take(), start.elapsed());
    }
}

fn step_name(index: u64) -> String {
    format!("s{index}")
}

/// A plan of echo steps. Each repeats the output of the one before.
pub fn chain(steps: u64) -> Value {
    let step = |index: u64| {
        let said = match index {
            0 => json!("hello"),
            _ => json!(format!("${{{{ steps.{}.outputs.said }}}}", step_name(index - 1))),
        };
        json!({"name": step_name(index), "tool": "echo", "inputs": {"said": said}})
    };
    json!({"plan": {"goal": "benchmark", "steps": (0..steps).map(step).collect::<Vec<_>>()}})
}

async fn wal_position(admin: &Client) -> Result<u64> {
    let sql = "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
    let rows = admin.query_typed(sql, &[]).await?;
    Ok(u64::try_from(rows.first().context("no WAL position")?.try_get::<_, i64>(0)?)?)
}

/// Fails unless every step of every run so far succeeded at its first attempt. Speed counts only if no work is lost or
/// repeated.
async fn check(admin: &Client) -> Result<()> {
    let sql = "select (select count(*) from nofx.run where status <> 'succeeded')
                    + (select count(*) from nofx.step where status <> 'succeeded' or attempt <> 1)
                    + (select count(*) from nofx.attempt where status <> 'succeeded')";
    let wrong: i64 = admin.query_typed(sql, &[]).await?.first().context("no count")?.try_get(0)?;
    ensure!(wrong == 0, "{wrong} runs, steps or attempts did not succeed at the first attempt");
    Ok(())
}
