//! The worker loop: SQS event in, claim, handle, finish, wake-ups out, batch response back.
//!
//! A batch costs one round trip to claim, and one to finish whatever ended at the same moment or while an earlier record
//! was under way. Where a finish makes a step of the same handler ready that still fits into the invocation, the same round
//! trip claims it: a chain of steps needs neither a message nor an invocation for each. Each record is judged by itself:
//! what cannot be read, or could not be recorded, goes back to the queue.

mod execute;
mod ownership;
mod prepare;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{iter, mem};

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use lambda_runtime::{LambdaEvent, service_fn};
use tokio_postgres::Transaction;
use tracing::{Instrument, error, info_span, warn};
use uuid::Uuid;

pub use self::execute::{Ended, Executor, InTransaction, Plain};
pub use self::ownership::Ownership;
use self::prepare::prepare;
use crate::context::Ctx;
use crate::db::step::{self, ClaimItem, Claimed, Claims, Continuation, FinishItem, Known, Skipped};
pub use crate::domain::ClaimedStep;
use crate::domain::tool::{self, HandlerSpec};
use crate::domain::trace::TraceParent;
use crate::domain::{Outcome, StepError, StepId};
use crate::error::Error;
use crate::flow::finish_step::{Recorded, conclude, record_ends};
use crate::flow::wake;
use crate::queue::Message;
use crate::storage::StepStore;
use crate::telemetry;

/// The code for a family of tools. It gets the claimed step and storage, never the database: what it wants changed it
/// returns as outcome. It must be safe to run twice: delivery is at least once.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, step: &ClaimedStep, store: &StepStore) -> impl Future<Output = Outcome> + Send;

    /// What the worker calls. A handler whose work costs money overrides it and stops when `ownership` is lost; every other
    /// handler works on, and its finish is fenced out.
    fn handle_while_owned(
        &self,
        step: &ClaimedStep,
        store: &StepStore,
        ownership: &Ownership,
    ) -> impl Future<Output = Outcome> + Send {
        let _ = ownership;
        self.handle(step, store)
    }
}

/// A handler whose effect is in our database: it works in the transaction that also finishes its step, so that the
/// effect happens exactly once. A failed outcome rolls back. It bounds each of its statements by what is left of the
/// step's timeout, so that the database itself ends them, and may become another role.
pub trait TransactionHandler: Send + Sync + 'static {
    fn handle(&self, step: &ClaimedStep, transaction: &Transaction<'_>) -> impl Future<Output = Outcome> + Send;
}

/// What is left of an invocation.
#[derive(Debug, Clone, Copy)]
pub struct Invocation {
    spec: &'static HandlerSpec,
    deadline: Instant,
    /// The most bytes that the values of a step's references may have.
    refs_bytes: usize,
}

impl Invocation {
    fn left(self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The longest that an attempt which starts now may take.
    fn longest_attempt(self) -> Duration {
        self.left().saturating_sub(FINISH_RESERVE)
    }

    /// What a finish that happens now may continue with.
    fn next(self, call: Uuid) -> Continuation {
        Continuation {
            call,
            handler: self.spec.name,
            lease_s: whole_seconds(self.left()),
            timeout_s: whole_seconds(self.longest_attempt()),
            refs_bytes: self.refs_bytes,
        }
    }
}

/// Kept back from every attempt, to record its end.
const FINISH_RESERVE: Duration = Duration::from_secs(3);
/// When the database is away, messages come back after this long instead of the queue's visibility timeout.
const RELEASE_AFTER_S: i32 = 5;

/// Serves a handler's queue until the process ends. The `main` of an SQS function.
pub async fn run<E: Executor>(
    handler: &str,
    make: impl FnOnce(&Ctx) -> Result<E, Error>,
) -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let spec = tool::handler(handler).ok_or("no such handler")?;
    let ctx = Ctx::for_connections(E::connections(spec.batch_size)).await?;
    let worker = Worker::new(ctx.clone(), spec, make(&ctx)?);
    lambda_runtime::run(service_fn(|event: LambdaEvent<SqsEvent>| {
        let left = event.context.deadline().duration_since(SystemTime::now());
        let worker = worker.clone();
        // Boxed: the future of a whole batch is too deep a type for the runtime's layers around it.
        Box::pin(async move { Ok::<_, lambda_runtime::Error>(worker.handle_batch(event.payload, left.ok()).await) })
    }))
    .await
}

/// The loop of one handler.
pub struct Worker<E> {
    ctx: Ctx,
    spec: &'static HandlerSpec,
    executor: Arc<E>,
}

impl<E> Clone for Worker<E> {
    fn clone(&self) -> Self {
        Self { ctx: self.ctx.clone(), spec: self.spec, executor: self.executor.clone() }
    }
}

/// What an invocation waits for: attempts that end, at most one record of such ends, so that those that end meanwhile
/// share the next one, and wake-ups on their way. All of it goes on beside each other.
enum Turn {
    Ended(Ended),
    Recorded(Recorded),
    Woken,
}

struct Delivery {
    message_id: String,
    receipt_handle: Option<String>,
    message: Message,
}

impl<E: Executor> Worker<E> {
    pub fn new(ctx: Ctx, spec: &'static HandlerSpec, executor: E) -> Self {
        Self { ctx, spec, executor: Arc::new(executor) }
    }

    /// Works on one batch. `left` is the rest of the invocation; a missing or absurd one (an emulator's) counts as the
    /// function's whole timeout.
    pub async fn handle_batch(&self, event: SqsEvent, left: Option<Duration>) -> SqsBatchResponse {
        let whole = Duration::from_secs(self.spec.function_timeout_s.into());
        let left = left.filter(|left| *left <= whole).unwrap_or(whole);
        let mut failures = Vec::new();
        let mut deliveries = Vec::new();
        for record in event.records {
            match read(record) {
                Ok(delivery) => deliveries.push(delivery),
                Err(message_id) => failures.push(message_id),
            }
        }
        if !deliveries.is_empty() {
            let invocation = Invocation {
                spec: self.spec,
                deadline: Instant::now() + left,
                refs_bytes: self.ctx.config.limits.resolved_bytes,
            };
            failures.extend(self.work(&deliveries, invocation).await);
        }
        batch_response(failures)
    }

    /// Message ids of the deliveries that must come back.
    async fn work(&self, deliveries: &[Delivery], invocation: Invocation) -> Vec<String> {
        let (claims, unclaimed) = self.claim(deliveries, invocation).await;
        claims.skipped.iter().for_each(note_skipped);

        let mut work = FuturesUnordered::new();
        let attempt = |claimed: Claimed| self.attempt(claimed, invocation).map(Turn::Ended).boxed();
        work.extend(claims.claimed.into_iter().map(attempt));
        let (mut ended, mut recording, mut unrecorded) = (Vec::new(), false, Vec::new());
        while let Some(turn) = work.next().await {
            // With everything else that is ready now: what ends together shares a commit.
            let more = iter::from_fn(|| work.next().now_or_never().flatten());
            let (mut turns, mut done) = (vec![turn], Recorded::default());
            turns.extend(more);
            for turn in turns {
                match turn {
                    Turn::Ended(Ended::Record(item)) => ended.push(*item),
                    Turn::Ended(Ended::Recorded(finishes)) => done.take(finishes),
                    Turn::Recorded(recorded) => {
                        recording = false;
                        done.claimed.extend(recorded.claimed);
                        done.ready.extend(recorded.ready);
                        unrecorded.extend(recorded.unrecorded);
                    }
                    Turn::Woken => {}
                }
            }
            // Their leases run: they start before anybody else is told.
            work.extend(done.claimed.into_iter().map(attempt));
            if !done.ready.is_empty() {
                work.push(wake(&self.ctx.queue, done.ready).map(|()| Turn::Woken).boxed());
            }
            if !recording && !ended.is_empty() {
                recording = true;
                let record = record_ends(&self.ctx, mem::take(&mut ended), |call| invocation.next(call));
                work.push(record.map(Turn::Recorded).boxed());
            }
        }
        // A step that the invocation continued with has no delivery: the sweeper recovers it after its lease.
        deliveries
            .iter()
            .filter(|delivery| {
                let step = &delivery.message.step_id;
                unrecorded.contains(step) || unclaimed.contains(step)
            })
            .map(|delivery| delivery.message_id.clone())
            .collect()
    }

    /// Claims the steps of a batch, and says which could not be asked for: their messages come back.
    async fn claim(&self, deliveries: &[Delivery], invocation: Invocation) -> (Claims, Vec<StepId>) {
        let item = |delivery: &Delivery| claim_item(&delivery.message, invocation);
        let items: Vec<ClaimItem> = deliveries.iter().map(item).collect();
        let error = match step::steps_claim(&self.ctx.db, &items).await {
            Ok(claims) => return (claims, Vec::new()),
            Err(error) => error,
        };
        telemetry::report(&error, "claim steps");
        let (mut claims, mut unclaimed) = (Claims::default(), Vec::new());
        // The database was there and refused: what is wrong with one step must not keep its neighbours.
        let alone = !matches!(error, Error::Unavailable { .. }) && deliveries.len() > 1;
        for delivery in deliveries {
            if alone && let Ok(one) = step::steps_claim(&self.ctx.db, &[item(delivery)]).await {
                claims.claimed.extend(one.claimed);
                claims.skipped.extend(one.skipped);
            } else {
                self.release(delivery).await;
                unclaimed.push(delivery.message.step_id);
            }
        }
        (claims, unclaimed)
    }

    async fn attempt(&self, claimed: Claimed, invocation: Invocation) -> Ended {
        let (ctx, span) = (&self.ctx, span_of(&claimed));
        let work = async {
            match prepare(ctx, &claimed, invocation).await {
                Ok(step) => self.executor.execute(ctx, invocation, &claimed, step).await,
                Err(outcome) => Ended::Record(Box::new(concluded(ctx, &claimed, *outcome))),
            }
        };
        // One handler that breaks down must not take the batch along.
        match AssertUnwindSafe(work).catch_unwind().instrument(span).await {
            Ok(ended) => ended,
            Err(panic) => panicked(ctx, &claimed, panic.as_ref()),
        }
    }

    async fn release(&self, delivery: &Delivery) {
        let Some(receipt) = delivery.receipt_handle.as_deref() else { return };
        if let Err(error) = self.ctx.queue.release(self.spec.name, receipt, RELEASE_AFTER_S).await {
            warn!(%error, "the message comes back only after its visibility timeout");
        }
    }
}

fn concluded(ctx: &Ctx, claimed: &Claimed, outcome: Outcome) -> FinishItem {
    conclude(claimed, outcome, ctx.config.limits.outputs_bytes, fastrand::f64())
}

fn panicked(ctx: &Ctx, claimed: &Claimed, panic: &(dyn Any + Send)) -> Ended {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let said = text.unwrap_or_default();
    error!(run_id = %claimed.run_id, step_id = %claimed.step_id, tool = claimed.tool, said, "the handler panicked");
    let error = StepError::new("handler_panicked", "the handler broke down; this is a defect of ours");
    Ended::Record(Box::new(concluded(ctx, claimed, Outcome::retryable(error))))
}

/// The delivery, or the id of a message that nobody can read: it ends in the dead-letter queue.
fn read(record: SqsMessage) -> Result<Delivery, String> {
    let message_id = record.message_id.unwrap_or_default();
    match serde_json::from_str(record.body.as_deref().unwrap_or_default()) {
        Ok(message) => Ok(Delivery { message_id, receipt_handle: record.receipt_handle, message }),
        Err(error) => {
            error!(message_id, %error, "not a wake-up: left for the dead-letter queue");
            Err(message_id)
        }
    }
}

/// Rounded down: nothing may be promised for a part of a second.
fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

fn claim_item(message: &Message, invocation: Invocation) -> ClaimItem {
    ClaimItem {
        tenant_id: message.tenant_id.clone(),
        run_id: message.run_id,
        step_id: message.step_id,
        lease_s: whole_seconds(invocation.left()),
        refs_bytes: invocation.refs_bytes,
    }
}

fn note_skipped(skipped: &Skipped) {
    match skipped.status {
        Known::Unknown => warn!(step_id = %skipped.step_id, "a wake-up for no step of its tenant: dropped"),
        Known::Is(status) => tracing::debug!(step_id = %skipped.step_id, %status, "nothing to claim"),
    }
}

fn batch_response(failures: Vec<String>) -> SqsBatchResponse {
    let mut response = SqsBatchResponse::default();
    response.batch_item_failures = failures
        .into_iter()
        .map(|id| {
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = id;
            failure
        })
        .collect();
    response
}

fn span_of(claimed: &Claimed) -> tracing::Span {
    let trace = claimed.traceparent.as_deref().and_then(TraceParent::parse);
    info_span!(
        "step",
        run_id = %claimed.run_id,
        step_id = %claimed.step_id,
        tenant_id = %claimed.tenant_id,
        tool = claimed.tool,
        attempt = claimed.attempt,
        trace_id = trace.map(TraceParent::trace_id),
    )
}
