//! The worker loop: SQS event in, claim, handle, finish, wake-ups out, batch response back.
//!
//! A batch costs one round trip to claim, and one to finish whatever ended at the same moment or while an earlier record
//! was under way. Where a finish makes a step of the same handler ready that still fits into the invocation, the same round
//! trip claims it: a chain of steps needs neither a message nor an invocation for each. Each record is judged by itself:
//! what cannot be read, or could not be recorded, goes back to the queue.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{iter, mem};

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;
use tokio::time::timeout;
use tokio_postgres::Transaction;
use tracing::{Instrument, error, info_span, warn};
use uuid::Uuid;

use crate::context::Ctx;
use crate::db::step::{self, ClaimItem, Claimed, Continuation, FinishItem, FinishResult, Finishes, Skipped};
pub use crate::domain::ClaimedStep;
use crate::domain::tool::{self, HandlerSpec};
use crate::domain::trace::TraceParent;
use crate::domain::{ArtifactId, Outcome, StepError, TenantId, Verdict, Workspace, outcome::ArtifactRef, reference};
use crate::error::Error;
use crate::flow::finish_step::{Recorded, conclude, record_ends};
use crate::flow::wake;
use crate::queue::Message;
use crate::storage::StepStore;
use crate::telemetry;

mod ownership;

pub use ownership::Ownership;

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
/// effect happens exactly once. A failed outcome rolls back.
pub trait TransactionHandler: Send + Sync + 'static {
    fn handle(&self, step: &ClaimedStep, transaction: &Transaction<'_>) -> impl Future<Output = Outcome> + Send;
}

/// How a claimed step is worked on; see [`Plain`] and [`InTransaction`].
pub trait Executor: Send + Sync + 'static {
    fn execute(
        &self,
        ctx: &Ctx,
        invocation: Invocation,
        claimed: &Claimed,
        step: ClaimedStep,
    ) -> impl Future<Output = Ended> + Send;
}

/// Works, then finishes.
pub struct Plain<H>(pub H);

/// Works and finishes in one transaction.
pub struct InTransaction<H>(pub H);

/// An attempt that has ended.
pub enum Ended {
    /// Still to be recorded.
    Record(Box<FinishItem>),
    /// Recorded together with its effect.
    Recorded(Finishes),
}

/// What is left of an invocation.
#[derive(Debug, Clone, Copy)]
pub struct Invocation {
    spec: &'static HandlerSpec,
    deadline: Instant,
}

impl Invocation {
    fn left(self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The longest that an attempt which starts now may take.
    fn longest_attempt(self) -> Duration {
        self.left().saturating_sub(FINISH_RESERVE)
    }

    /// What a finish that happens now may go on with.
    fn next(self, call: Uuid) -> Continuation {
        Continuation {
            call,
            handler: self.spec.name,
            lease_s: whole_seconds(self.left()),
            timeout_s: whole_seconds(self.longest_attempt()),
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
    let ctx = Ctx::from_env().await?;
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
            let invocation = Invocation { spec: self.spec, deadline: Instant::now() + left };
            failures.extend(self.work(&deliveries, invocation).await);
        }
        batch_response(failures)
    }

    /// Message ids of the deliveries that must come back.
    async fn work(&self, deliveries: &[Delivery], invocation: Invocation) -> Vec<String> {
        let lease_s = whole_seconds(invocation.left());
        let items: Vec<ClaimItem> = deliveries.iter().map(|delivery| claim_item(&delivery.message, lease_s)).collect();
        let claims = match step::steps_claim(&self.ctx.db, &items).await {
            Ok(claims) => claims,
            Err(error) => {
                telemetry::report(&error, "claim steps");
                self.release(deliveries).await;
                return deliveries.iter().map(|delivery| delivery.message_id.clone()).collect();
            }
        };
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
        // A step that the invocation went on with has no delivery: the sweeper recovers it after its lease.
        deliveries
            .iter()
            .filter(|delivery| unrecorded.contains(&delivery.message.step_id))
            .map(|delivery| delivery.message_id.clone())
            .collect()
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

    async fn release(&self, deliveries: &[Delivery]) {
        for receipt in deliveries.iter().filter_map(|delivery| delivery.receipt_handle.as_deref()) {
            if let Err(error) = self.ctx.queue.release(self.spec.name, receipt, RELEASE_AFTER_S).await {
                warn!(%error, "the message comes back only after its visibility timeout");
            }
        }
    }
}

impl<H: Handler> Executor for Plain<H> {
    async fn execute(&self, ctx: &Ctx, _: Invocation, claimed: &Claimed, step: ClaimedStep) -> Ended {
        let store = ctx.storage.for_step(&step);
        let ownership = Ownership::of(&ctx.db, claimed);
        let outcome = in_time(step.timeout, self.0.handle_while_owned(&step, &store, &ownership)).await;
        Ended::Record(Box::new(concluded(ctx, claimed, outcome)))
    }
}

impl<H: TransactionHandler> Executor for InTransaction<H> {
    async fn execute(&self, ctx: &Ctx, invocation: Invocation, claimed: &Claimed, step: ClaimedStep) -> Ended {
        let call = Uuid::new_v4();
        match self.commit(ctx, invocation, call, claimed, &step).await {
            Ok(ended) => ended,
            Err(error) => {
                telemetry::report(&error, "work in a transaction");
                let outcome = Outcome::retryable(StepError::new("database_unavailable", error.to_string()));
                // It may have been committed all the same.
                Ended::Record(Box::new(FinishItem { call: Some(call), ..concluded(ctx, claimed, outcome) }))
            }
        }
    }
}

impl<H: TransactionHandler> InTransaction<H> {
    async fn commit(
        &self,
        ctx: &Ctx,
        invocation: Invocation,
        call: Uuid,
        claimed: &Claimed,
        step: &ClaimedStep,
    ) -> Result<Ended, Error> {
        let mut object = ctx.db.client().await?;
        let client: &mut tokio_postgres::Client = &mut object;
        let transaction = client.transaction().await.map_err(crate::db::database_error)?;
        ctx.db.count_round_trips(1);
        // The connection may have taken its time.
        let limit = step.timeout.min(invocation.longest_attempt());
        let outcome = in_time(limit, self.0.handle(step, &transaction)).await;
        let succeeded = matches!(outcome.verdict, Verdict::Succeeded(_));
        let item = concluded(ctx, claimed, outcome);
        if !succeeded {
            transaction.rollback().await.map_err(crate::db::database_error)?;
            return Ok(Ended::Record(Box::new(item)));
        }
        let next = invocation.next(call);
        let finishes = step::steps_finish_in(&transaction, std::slice::from_ref(&item), Some(&next)).await?;
        let counts = finishes.items.iter().all(|item| item.result == FinishResult::Finished);
        // Fenced out or finished before: somebody else's effect stands, ours must not.
        let end = if counts { transaction.commit().await } else { transaction.rollback().await };
        ctx.db.count_round_trips(2);
        end.map_err(crate::db::database_error)?;
        Ok(Ended::Recorded(finishes))
    }
}

/// The handler's view of a claimed step, or the outcome of one that cannot be worked on.
async fn prepare(ctx: &Ctx, claimed: &Claimed, invocation: Invocation) -> Result<ClaimedStep, Box<Outcome>> {
    let inputs = reference::resolve(&claimed.inputs, &claimed.upstream)
        .map_err(|message| Box::new(Outcome::failed(StepError::new("unresolved_reference", message))))?;
    let workspace = match inputs.get("workspace").filter(|_| claimed.tool.starts_with("gate:")) {
        Some(asked) => Some(workspace_of(ctx, &claimed.tenant_id, asked).await?),
        None => claimed.workspace.clone(),
    };
    let most = invocation.longest_attempt();
    let asked = claimed.timeout_s.map_or(most, |seconds| Duration::from_secs(seconds.into()));
    Ok(ClaimedStep {
        tenant_id: claimed.tenant_id.clone(),
        run_id: claimed.run_id,
        step_id: claimed.step_id,
        name: claimed.name.clone(),
        tool: claimed.tool.clone(),
        attempt: claimed.attempt,
        inputs,
        goal: claimed.goal.clone(),
        workspace,
        timeout: asked.min(most),
        timeout_s: claimed.timeout_s,
    })
}

/// A gate step may name a workspace of its own, such as an upstream step's output. Costs a round trip of its own.
async fn workspace_of(ctx: &Ctx, tenant: &TenantId, asked: &Value) -> Result<Workspace, Box<Outcome>> {
    let failed = |message: String| Box::new(Outcome::failed(StepError::new("no_workspace", message)));
    let id = |role: &str| match &asked[role] {
        Value::Null => Ok(None),
        value => value
            .as_str()
            .and_then(|text| text.parse::<ArtifactId>().ok())
            .map(Some)
            .ok_or_else(|| failed(format!("inputs.workspace.{role} must be the id of an artifact"))),
    };
    let archive = id("archive")?.ok_or_else(|| failed("inputs.workspace.archive is missing".into()))?;
    let (base, diff) = (id("base")?, id("diff")?);
    let wanted: Vec<_> = [Some(archive), base, diff].into_iter().flatten().collect();
    let found = step::artifacts_by_id(&ctx.db, tenant, &wanted).await.map_err(|error| {
        telemetry::report(&error, "look artifacts up");
        Box::new(Outcome::retryable(StepError::new("database_unavailable", error.to_string())))
    })?;
    let take = |id: ArtifactId| -> Result<ArtifactRef, Box<Outcome>> {
        found.get(&id).cloned().ok_or_else(|| failed(format!("no artifact has the id {id}")))
    };
    Ok(Workspace { archive: take(archive)?, base: base.map(&take).transpose()?, diff: diff.map(&take).transpose()? })
}

async fn in_time(limit: Duration, work: impl Future<Output = Outcome>) -> Outcome {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("did not end within {} s", limit.as_secs());
        Outcome::retryable(StepError::new("timed_out", message))
    })
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

fn claim_item(message: &Message, lease_s: u32) -> ClaimItem {
    ClaimItem { tenant_id: message.tenant_id.clone(), run_id: message.run_id, step_id: message.step_id, lease_s }
}

fn note_skipped(skipped: &Skipped) {
    if skipped.status == "unknown" {
        warn!(step_id = %skipped.step_id, "a wake-up for no step of its tenant: dropped");
    } else {
        tracing::debug!(step_id = %skipped.step_id, status = skipped.status, "nothing to claim");
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
