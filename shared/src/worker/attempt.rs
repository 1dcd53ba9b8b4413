//! One attempt, from claimed row to end.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tracing::{Instrument, Span, error};

use super::Invocation;
use super::execute::{Ended, Executor};
use super::prepare::prepare;
use crate::context::Ctx;
use crate::db::step::{Claimed, FinishItem};
use crate::domain::{Outcome, StepError};
use crate::flow::finish_step;

/// Executes a claimed step in `span`.
pub(super) async fn attempt<E: Executor>(
    ctx: &Ctx,
    executor: &E,
    invocation: Invocation,
    claimed: Claimed,
    span: Span,
) -> Ended {
    let work = async {
        match prepare(ctx, &claimed, invocation).await {
            Ok(step) => executor.execute(ctx, invocation, &claimed, step).await,
            Err(outcome) => Ended::ToRecord(Box::new(finish_item(ctx, &claimed, *outcome))),
        }
    };
    // A panic in one handler must not end the whole batch.
    let caught = AssertUnwindSafe(work).catch_unwind();
    let ended = async { caught.await.unwrap_or_else(|panic| panicked(ctx, &claimed, panic.as_ref())) };
    ended.instrument(span).await
}

/// The finish of an attempt that ended with this outcome.
pub(super) fn finish_item(ctx: &Ctx, claimed: &Claimed, outcome: Outcome) -> FinishItem {
    finish_step::finish_item(claimed, outcome, ctx.config.limits.outputs_bytes, fastrand::f64())
}

fn panicked(ctx: &Ctx, claimed: &Claimed, panic: &(dyn Any + Send)) -> Ended {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    error!(panic = text.unwrap_or_default(), "the handler panicked");
    let error = StepError::new("handler_panicked", "the handler panicked; this is a defect in NOFX");
    Ended::ToRecord(Box::new(finish_item(ctx, claimed, Outcome::retryable(error))))
}
