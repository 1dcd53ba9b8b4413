//! Executes a claimed step: the handler first and the finish later, or both in one transaction.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio::time::{Instant, timeout};
use tokio_postgres::Transaction;
use uuid::Uuid;

use super::attempt::{finish_item, finish_work};
use super::{Handler, Invocation, ModelCalls, TransactionHandler};
use crate::context::Ctx;
use crate::db::step::{self, Claimed, FinishItem, FinishResult, FinishTo};
use crate::db::{database_error, session_discard};
use crate::domain::{ClaimedStep, Outcome, StepError};
use crate::error::Error;
use crate::flow::finish_step::{Recorded, log_finished};
use crate::telemetry;

/// Executes claimed steps. See [`WorkThenRecord`] and [`InTransaction`].
pub trait Executor: Send + Sync + 'static {
    fn execute(
        &self,
        ctx: &Ctx,
        invocation: Invocation,
        claimed: &Claimed,
        step: ClaimedStep,
    ) -> impl Future<Output = Ended> + Send;

    /// Connections that a batch of this size needs.
    fn connections(_batch_size: u32) -> u32 {
        1
    }
}

/// Runs the handler. The batch records the end later, together with others.
pub struct WorkThenRecord<H>(pub H);

/// Runs the handler in the transaction that also finishes its step.
pub struct InTransaction<H>(pub H);

/// An attempt that has ended.
pub enum Ended {
    /// Not recorded yet.
    ToRecord(Box<FinishItem>),
    /// Recorded in the same commit as its effect.
    Recorded(Recorded),
}

/// A transaction handler limits its statements to the step's timeout. Its connection is dropped this long after that.
const GRACE: Duration = Duration::from_secs(2);
/// The share of an attempt's time in which its model calls can be accounted for. Then its result is stored.
const ACCOUNTING: f64 = 0.95;

impl<H: Handler> Executor for WorkThenRecord<H> {
    async fn execute(&self, ctx: &Ctx, invocation: Invocation, claimed: &Claimed, step: ClaimedStep) -> Ended {
        let store = ctx.storage.for_step(&step);
        let calls = ModelCalls::of(ctx, claimed, Instant::now() + step.timeout.mul_f64(ACCOUNTING));
        let worked = timeout(step.timeout, self.0.handle_with_models(&step, &store, &calls)).await;
        let outcome = worked.unwrap_or_else(|_| timed_out(step.timeout));
        Ended::ToRecord(Box::new(finish_work(ctx, invocation, claimed, &step, outcome)))
    }
}

impl<H: TransactionHandler> Executor for InTransaction<H> {
    async fn execute(&self, ctx: &Ctx, invocation: Invocation, claimed: &Claimed, step: ClaimedStep) -> Ended {
        let call = Uuid::new_v4();
        match self.commit(ctx, invocation, call, claimed, step).await {
            Ok(ended) => ended,
            Err(error) => {
                telemetry::report(&error, "work in a transaction");
                let outcome = if matches!(error, Error::Unavailable { .. }) {
                    Outcome::retryable(StepError::new("database_unavailable", error.to_string()))
                } else {
                    let message = format!("the outcome cannot be stored: {error}");
                    Outcome::failed(StepError::new("unrecordable", message))
                };
                // The commit may have succeeded anyway. The next finish detects that by the call id.
                Ended::ToRecord(Box::new(FinishItem { call: Some(call), ..finish_item(ctx, claimed, outcome) }))
            }
        }
    }

    /// One for each step, so that a write that waits for a lock does not delay others, and one to record failures.
    fn connections(batch_size: u32) -> u32 {
        batch_size + 1
    }
}

impl<H: TransactionHandler> InTransaction<H> {
    async fn commit(
        &self,
        ctx: &Ctx,
        invocation: Invocation,
        call: Uuid,
        claimed: &Claimed,
        mut step: ClaimedStep,
    ) -> Result<Ended, Error> {
        let mut object = ctx.db.client().await?;
        let client: &mut tokio_postgres::Client = &mut object;
        let transaction = client.transaction().await.map_err(database_error)?;
        ctx.db.count_round_trips(1);
        // Waiting for the connection may have taken some of the time.
        step.timeout = step.timeout.min(invocation.longest_attempt());
        let Ok(outcome) = timeout(step.timeout + GRACE, self.0.handle(&step, &transaction)).await else {
            drop(transaction);
            // Its statement may still be running, so nobody else may use this connection.
            drop(Object::take(object));
            return Ok(Ended::ToRecord(Box::new(finish_item(ctx, claimed, timed_out(step.timeout)))));
        };
        let item = finish_work(ctx, invocation, claimed, &step, outcome);
        let ended = self.end(ctx, invocation, call, transaction, item).await;
        // Triggers and functions of the written tables ran on this connection. Remove what they set or locked for the
        // session.
        let clean = session_discard(client).await;
        ctx.db.count_round_trips(1);
        if !clean {
            drop(Object::take(object));
        }
        ended
    }

    async fn end(
        &self,
        ctx: &Ctx,
        invocation: Invocation,
        call: Uuid,
        transaction: Transaction<'_>,
        item: FinishItem,
    ) -> Result<Ended, Error> {
        // The finish decides, not the handler's outcome, because outputs may be refused.
        if item.to != FinishTo::Succeeded {
            transaction.rollback().await.map_err(database_error)?;
            return Ok(Ended::ToRecord(Box::new(item)));
        }
        let next = invocation.continuation(call);
        let finishes = step::steps_finish_in(&transaction, std::slice::from_ref(&item), Some(&next)).await?;
        let counts = finishes.items.iter().all(|item| item.result == FinishResult::Finished);
        // If the attempt was fenced out or finished before, its effect must not be committed.
        let end = if counts { transaction.commit().await } else { transaction.rollback().await };
        ctx.db.count_round_trips(3);
        end.map_err(database_error)?;
        Ok(Ended::Recorded(Recorded::of(finishes, |finished| log_finished(&item, finished))))
    }
}

fn timed_out(limit: Duration) -> Outcome {
    let message = format!("did not end within {} s", limit.as_secs());
    Outcome::retryable(StepError::new("timed_out", message))
}
