//! The worker: takes an SQS event, claims its steps, executes and finishes them, sends wake-ups, and returns a batch
//! response.
//!
//! A batch needs one round trip to claim, and one to finish all attempts that ended at the same moment or while an
//! earlier record was in flight. If a finish makes a step of the same handler ready that fits into the rest of the
//! invocation, the same round trip claims it. So a chain of steps needs neither a message nor an invocation for each
//! step. Messages are handled one by one: those that could not be read or recorded return to the queue.
//!
//! In the order of a batch: `delivery` reads the event, `claim` claims its steps, `batch` runs the rest. For each step,
//! `attempt` calls `prepare` to resolve inputs and `execute` to run the `handler`. `invocation` has the remaining time,
//! `ownership` checks whether an attempt still owns its step, `model_calls` accounts for requests to models, and `span` has the fields of every log line about a step.

mod attempt;
mod batch;
mod claim;
mod delivery;
mod execute;
mod handler;
mod invocation;
mod model_calls;
mod ownership;
mod poll;
mod prepare;
mod span;

use std::time::SystemTime;

use aws_lambda_events::sqs::SqsEvent;
use lambda_runtime::{LambdaEvent, service_fn};

pub use self::batch::Worker;
pub use self::execute::{Ended, Executor, InTransaction, WorkThenRecord};
pub use self::handler::{Handler, TransactionHandler};
pub use self::invocation::Invocation;
pub use self::model_calls::ModelCalls;
pub use self::ownership::Ownership;
pub use self::poll::poll;
use crate::context::Ctx;
pub use crate::domain::ClaimedStep;
use crate::domain::tool;
use crate::error::Error;
use crate::telemetry;

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
        // Boxed, because the type of this future is nested too deeply for the runtime's layers.
        Box::pin(async move { Ok::<_, lambda_runtime::Error>(worker.handle_batch(event.payload, left.ok()).await) })
    }))
    .await
}
