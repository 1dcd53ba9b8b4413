//! `history`: the time and the pages of each transition when the tables hold many finished steps.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nofx_local::{database, report};
use serde_json::{Map, Value, json};
use shared::context::Ctx;
use shared::db::run::RunFilter;
use shared::db::step::{ClaimItem, FinishItem, FinishTo, steps_claim, steps_finish};
use shared::db::sweep::{Sweep, sweep};
use shared::db::{event, run};
use shared::domain::RunId;
use shared::flow::create_run::{Request, create_run};
use shared::queue::WakeUp;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::history_fill::fill;
use crate::lambda::{self, EventSource, session};
use crate::load::{STEPS_PER_RUN, chain};
use crate::server::{Database, Server};
use crate::stats::{self, Times, rounded};

const SMALL_HISTORY: u64 = 10_000;
const SAMPLES: usize = 400;
/// Number of measured calls. The same number of calls before them warms the session's plans.
const PAGE_SAMPLES: usize = 40;
/// Number of steps that each sweep finds due.
const DUE_STEPS: i64 = 20;

/// Median time in milliseconds and median pages of each operation.
type Measurements = BTreeMap<&'static str, (f64, f64)>;

pub async fn run(server: &Server, large: u64) -> Result<()> {
    let small = measure_with(server, SMALL_HISTORY).await?;
    let large_measurements = measure_with(server, large).await?;
    let ratio = |pick: fn(&(f64, f64)) -> f64| -> Map<String, Value> {
        let pairs = small.iter().zip(large_measurements.values());
        pairs
            .map(|((name, small), large)| ((*name).to_owned(), rounded(pick(large) / pick(small).max(0.001))))
            .collect()
    };
    stats::print(&json!({
        "bench": "history",
        "finished_steps": [SMALL_HISTORY, large],
        "time_ratio": ratio(|(ms, _)| *ms),
        "pages_ratio": ratio(|(_, pages)| *pages),
    }));
    Ok(())
}

async fn measure_with(server: &Server, finished: u64) -> Result<Measurements> {
    let database = server.create_database().await?;
    let admin = database::connect(&database.url).await?;
    let start = Instant::now();
    fill(&admin, finished / STEPS_PER_RUN).await?;
    report::took("history", format_args!("{finished} finished steps"), start.elapsed());
    let measurements = HistoryBench::new(&database, admin)?.measure().await?;
    server.drop_database(database).await?;

    let mut line = json!({"bench": "history", "finished_steps": finished});
    for (name, (ms, pages)) in &measurements {
        line[format!("{name}_p50_ms")] = rounded(*ms);
        line[format!("{name}_pages")] = rounded(*pages);
    }
    stats::print(&line);
    Ok(measurements)
}

struct HistoryBench {
    ctx: Ctx,
    event_source: EventSource,
    admin: Client,
}

impl HistoryBench {
    fn new(database: &Database, admin: Client) -> Result<Self> {
        let (queue, event_source) = lambda::queue();
        Ok(Self { ctx: lambda::context(&database.url, &queue, lambda::WORKER_POOL_SIZE)?, event_source, admin })
    }

    async fn measure(&self) -> Result<Measurements> {
        let mut times: BTreeMap<&'static str, Times> = BTreeMap::new();
        let mut last = None;
        for _ in 0..SAMPLES {
            let wakeup = self.ready_step().await?;
            last = Some(wakeup.run_id);
            let claim = [claim_item(&wakeup)];
            let (claims, took) = timed(steps_claim(&self.ctx.db, &claim)).await?;
            times.entry("claim").or_default().add(took);
            anyhow::ensure!(claims.claimed.len() == 1, "a ready step could not be claimed");
            let (_, took) = timed(steps_finish(&self.ctx.db, &[finish_item(&wakeup)], None)).await?;
            times.entry("finish").or_default().add(took);
            // The next step of the chain gets no wake-up, so some steps always stay ready.
        }
        let last = last.context("no run")?;
        for _ in 0..SAMPLES {
            let all = RunFilter::default();
            let (_, took) = timed(run::run_list(&session(&self.ctx), &all, None, 50)).await?;
            times.entry("list").or_default().add(took);
            let (_, took) = timed(event::event_list(&session(&self.ctx), last, 0, 100)).await?;
            times.entry("timeline").or_default().add(took);
        }
        for _ in 0..PAGE_SAMPLES {
            self.make_due().await?;
            let start = Instant::now();
            for kind in Sweep::ALL {
                sweep(&self.ctx.db, kind, 500).await?;
            }
            times.entry("sweep").or_default().add(start.elapsed());
        }
        let pages = self.measure_pages(last).await?;
        Ok(pages.into_iter().map(|(name, pages)| (name, (times[name].percentile_ms(50), pages))).collect())
    }

    /// Pages that the calls touch. EXPLAIN counts the statements inside functions too.
    async fn measure_pages(&self, last: RunId) -> Result<BTreeMap<&'static str, f64>> {
        let mut pages: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        let tenant = &self.ctx.config.tenant;
        for index in 0..2 * PAGE_SAMPLES {
            let wakeup = self.ready_step().await?;
            self.make_due().await?;
            let claim = json!([claim_item(&wakeup)]);
            let finish = json!([finish_item(&wakeup)]);
            let statements = [
                ("claim", vec![format!("select nofx.steps_claim('{claim}')")]),
                ("finish", vec![format!("select nofx.steps_finish('{finish}')")]),
                (
                    "list",
                    vec![format!(
                        "select r.id, r.status from nofx.run r where r.tenant_id = '{tenant}'
                      order by r.created_at desc, r.id desc limit 50"
                    )],
                ),
                (
                    "timeline",
                    vec![format!(
                        "select e.seq, s.name from nofx.event e left join nofx.step s on s.id = e.step_id
                      where e.tenant_id = '{tenant}' and e.run_id = '{last}' and e.seq > 0 order by e.seq limit 100"
                    )],
                ),
                (
                    "sweep",
                    ["leases", "gates", "runs", "wakeups"].map(|kind| format!("select nofx.sweep_{kind}(500)")).into(),
                ),
            ];
            for (name, statements) in statements {
                let mut touched = 0.0;
                for statement in statements {
                    touched += pages_of(&self.admin, &statement).await?;
                }
                if index >= PAGE_SAMPLES {
                    pages.entry(name).or_default().push(touched);
                }
            }
        }
        Ok(pages.into_iter().map(|(name, pages)| (name, stats::median(&pages))).collect())
    }

    /// Creates a run, and returns the wake-up of its first step.
    async fn ready_step(&self) -> Result<WakeUp> {
        let body = chain(STEPS_PER_RUN);
        let request = Request { body: &body, idempotency_key: None, traceparent: None, actor: None };
        create_run(&self.ctx, &session(&self.ctx), &request).await?;
        self.event_source.receive().await.pop().context("no wake-up")
    }

    async fn make_due(&self) -> Result<()> {
        let sql = format!(
            "update nofx.step s set notify_at = now(), notify_count = 0
              where s.id in (select d.id from nofx.step d where d.notify_at is not null order by d.notify_at limit {DUE_STEPS})"
        );
        Ok(self.admin.batch_execute(&sql).await?)
    }
}

fn claim_item(wakeup: &WakeUp) -> ClaimItem {
    ClaimItem {
        tenant_id: wakeup.tenant_id.clone(),
        run_id: wakeup.run_id,
        step_id: wakeup.step_id,
        lease_s: 30,
        refs_bytes: 1 << 20,
        terms: false,
    }
}

fn finish_item(wakeup: &WakeUp) -> FinishItem {
    FinishItem {
        tenant_id: wakeup.tenant_id.clone(),
        run_id: wakeup.run_id,
        step_id: wakeup.step_id,
        attempt: 1,
        call: None,
        to: FinishTo::Succeeded,
        outputs: serde_json::value::to_raw_value(&json!({"text": "hello"})).ok(),
        error: None,
        delay_ms: 0,
        artifacts: Vec::new(),
        gates: Vec::new(),
        events: Vec::new(),
        made_by: None,
    }
}

async fn timed<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<(T, Duration), E> {
    let start = Instant::now();
    let result = work.await?;
    Ok((result, start.elapsed()))
}

async fn pages_of(admin: &Client, statement: &str) -> Result<f64> {
    let rows = admin.simple_query(&format!("explain (analyze, buffers, timing off, format json) {statement}")).await?;
    let text = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let plan: Value = serde_json::from_str(text.context("no plan")?)?;
    let blocks = |name: &str| plan[0]["Plan"][name].as_f64().unwrap_or(0.0);
    Ok(blocks("Shared Hit Blocks") + blocks("Shared Read Blocks"))
}
