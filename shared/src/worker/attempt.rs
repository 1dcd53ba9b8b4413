//! One attempt: from a claimed row to its end.

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
use crate::flow::finish_step::conclude;

/// Works on a claimed step; whatever is logged meanwhile belongs to `span`.
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
            Err(outcome) => Ended::ToRecord(Box::new(concluded(ctx, &claimed, *outcome))),
        }
    };
    // One handler that breaks down must not take the batch along.
    let caught = AssertUnwindSafe(work).catch_unwind();
    let ended = async { caught.await.unwrap_or_else(|panic| panicked(ctx, &claimed, panic.as_ref())) };
    ended.instrument(span).await
}

/// The record of an attempt that ended with this outcome.
pub(super) fn concluded(ctx: &Ctx, claimed: &Claimed, outcome: Outcome) -> FinishItem {
    conclude(claimed, outcome, ctx.config.limits.outputs_bytes, fastrand::f64())
}

fn panicked(ctx: &Ctx, claimed: &Claimed, panic: &(dyn Any + Send)) -> Ended {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    error!(said = text.unwrap_or_default(), "the handler panicked");
    let error = StepError::new("handler_panicked", "the handler broke down; this is a defect of ours");
    Ended::ToRecord(Box::new(concluded(ctx, claimed, Outcome::retryable(error))))
}
