//! The worker loop: an SQS event in, its steps claimed, worked on and finished, wake-ups out, a batch response back.
//!
//! A batch costs one round trip to claim, and one to finish whatever ended at the same moment or while an earlier record
//! was under way. Where a finish makes a step of the same handler ready that still fits into the invocation, the same round
//! trip claims it: a chain of steps needs neither a message nor an invocation for each. Each record is judged by itself:
//! what cannot be read, or could not be recorded, goes back to the queue.
//!
//! In the order of a batch: `delivery` reads the event, `claim` claims, `batch` runs what follows; for each step `attempt`
//! lets `prepare` resolve its inputs and `execute` run its `handler`. `invocation` knows how much time is left, `ownership`
//! whether a step is still its attempt's, `span` what every log line about a step carries.

mod attempt;
mod batch;
mod claim;
mod delivery;
mod execute;
mod handler;
mod invocation;
mod ownership;
mod prepare;
mod span;

use std::time::SystemTime;

use aws_lambda_events::sqs::SqsEvent;
use lambda_runtime::{LambdaEvent, service_fn};

pub use self::batch::Worker;
pub use self::execute::{Ended, Executor, InTransaction, WorkThenRecord};
pub use self::handler::{Handler, TransactionHandler};
pub use self::invocation::Invocation;
pub use self::ownership::Ownership;
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
        // Boxed: the future of a whole batch is too deep a type for the runtime's layers around it.
        Box::pin(async move { Ok::<_, lambda_runtime::Error>(worker.handle_batch(event.payload, left.ok()).await) })
    }))
    .await
}
