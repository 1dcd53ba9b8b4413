//! One attempt, from claimed row to end.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tracing::{Instrument, Span, error};

use super::Invocation;
use super::execute::{Ended, Executor};
use super::prepare::prepare;
use crate::context::Ctx;
use crate::db::step::{Claimed, FinishItem, MadeBy};
use crate::domain::digest::canonical_sha256;
use crate::domain::{ArtifactId, ClaimedStep, Outcome, StepError};
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

/// The same for an outcome of a handler: records what made its artifacts, and what they were made from.
pub(super) fn finish_work(
    ctx: &Ctx,
    invocation: Invocation,
    claimed: &Claimed,
    step: &ClaimedStep,
    mut outcome: Outcome,
) -> FinishItem {
    add_inputs(&mut outcome, step);
    let mut item = finish_item(ctx, claimed, outcome);
    if !item.artifacts.is_empty() {
        item.made_by = canonical_sha256(&step.inputs)
            .ok()
            .map(|inputs_sha256| MadeBy { builder: builder(invocation.spec.name), inputs_sha256 });
    }
    item
}

/// The name of a function with the version of its program.
fn builder(function: &str) -> String {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    match option_env!("NOFX_REVISION").filter(|revision| !revision.is_empty()) {
        Some(revision) => format!("{function}@{VERSION}+{revision}"),
        None => format!("{function}@{VERSION}"),
    }
}

/// Every artifact that the step took is one that its artifacts were made from. Where a handler says more precisely which were,
/// only the inputs that it names nowhere are added.
fn add_inputs(outcome: &mut Outcome, step: &ClaimedStep) {
    let workspace =
        step.workspace.iter().flat_map(|given| [Some(&given.archive), given.base.as_ref(), given.diff.as_ref()]);
    let taken = workspace.flatten().chain(step.artifacts.values()).map(|artifact| artifact.id);
    let named: Vec<ArtifactId> =
        outcome.artifacts.iter().flat_map(|artifact| artifact.made_from.iter().copied()).collect();
    let mut missing: Vec<ArtifactId> = taken.filter(|id| !named.contains(id)).collect();
    missing.sort_unstable();
    missing.dedup();
    for artifact in &mut outcome.artifacts {
        artifact.made_from.extend(&missing);
    }
}

fn panicked(ctx: &Ctx, claimed: &Claimed, panic: &(dyn Any + Send)) -> Ended {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    error!(panic = text.unwrap_or_default(), "the handler panicked");
    let error = StepError::new("handler_panicked", "the handler panicked; this is a defect in NOFX");
    Ended::ToRecord(Box::new(finish_item(ctx, claimed, Outcome::retryable(error))))
}
