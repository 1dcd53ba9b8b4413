//! How a claimed step is worked on: its handler's work, then the record of its end, or both in one transaction.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio::time::timeout;
use tokio_postgres::Transaction;
use uuid::Uuid;

use super::attempt::concluded;
use super::{Handler, Invocation, Ownership, TransactionHandler};
use crate::context::Ctx;
use crate::db::step::{self, Claimed, FinishItem, FinishResult, FinishTo};
use crate::db::{database_error, session_discard};
use crate::domain::{ClaimedStep, Outcome, StepError};
use crate::error::Error;
use crate::flow::finish_step::{Recorded, note_finished};
use crate::telemetry;

/// How a claimed step is worked on; see [`WorkThenRecord`] and [`InTransaction`].
pub trait Executor: Send + Sync + 'static {
    fn execute(
        &self,
        ctx: &Ctx,
        invocation: Invocation,
        claimed: &Claimed,
        step: ClaimedStep,
    ) -> impl Future<Output = Ended> + Send;

    /// Connections that a batch of so many steps needs at once.
    fn connections(_batch_size: u32) -> u32 {
        1
    }
}

/// Lets the handler work, and leaves its end to a record that the batch shares.
pub struct WorkThenRecord<H>(pub H);

/// Lets the handler work in the transaction that also finishes its step.
pub struct InTransaction<H>(pub H);

/// An attempt that has ended.
pub enum Ended {
    /// Still to be recorded.
    ToRecord(Box<FinishItem>),
    /// Recorded together with its effect.
    Recorded(Recorded),
}

/// A transaction handler bounds its own statements by the step's timeout. This much later its connection is given up.
const GRACE: Duration = Duration::from_secs(2);

impl<H: Handler> Executor for WorkThenRecord<H> {
    async fn execute(&self, ctx: &Ctx, _: Invocation, claimed: &Claimed, step: ClaimedStep) -> Ended {
        let store = ctx.storage.for_step(&step);
        let ownership = Ownership::of(&ctx.db, claimed);
        let worked = timeout(step.timeout, self.0.handle_while_owned(&step, &store, &ownership)).await;
        let outcome = worked.unwrap_or_else(|_| timed_out(step.timeout));
        Ended::ToRecord(Box::new(concluded(ctx, claimed, outcome)))
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
                // It may have been committed all the same.
                Ended::ToRecord(Box::new(FinishItem { call: Some(call), ..concluded(ctx, claimed, outcome) }))
            }
        }
    }

    /// One for each step, so that a write that waits for a lock keeps no other from starting; one to record failures.
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
        // The connection may have taken its time.
        step.timeout = step.timeout.min(invocation.longest_attempt());
        let Ok(outcome) = timeout(step.timeout + GRACE, self.0.handle(&step, &transaction)).await else {
            drop(transaction);
            // Its statement may still be running: this connection must not serve anybody else.
            drop(Object::take(object));
            return Ok(Ended::ToRecord(Box::new(concluded(ctx, claimed, timed_out(step.timeout)))));
        };
        let item = concluded(ctx, claimed, outcome);
        let ended = self.end(ctx, invocation, call, transaction, item).await;
        // Triggers and functions of the handler's tables ran on this connection: what they set or locked for the session
        // ends here.
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
        // What is recorded decides, not what the handler returned: its outputs may be refused.
        if item.to != FinishTo::Succeeded {
            transaction.rollback().await.map_err(database_error)?;
            return Ok(Ended::ToRecord(Box::new(item)));
        }
        let next = invocation.continuation(call);
        let finishes = step::steps_finish_in(&transaction, std::slice::from_ref(&item), Some(&next)).await?;
        let counts = finishes.items.iter().all(|item| item.result == FinishResult::Finished);
        // Fenced out or finished before: somebody else's effect stands, ours must not.
        let end = if counts { transaction.commit().await } else { transaction.rollback().await };
        ctx.db.count_round_trips(3);
        end.map_err(database_error)?;
        Ok(Ended::Recorded(Recorded::of(finishes, |finished| note_finished(&item, finished))))
    }
}

fn timed_out(limit: Duration) -> Outcome {
    let message = format!("did not end within {} s", limit.as_secs());
    Outcome::retryable(StepError::new("timed_out", message))
}
