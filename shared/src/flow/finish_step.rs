//! The end of an attempt: what its outcome means for its step, and the record of it.

use std::slice;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::sleep;
use tracing::{info, warn};
use uuid::Uuid;

use crate::context::Ctx;
use crate::db::step::{
    self, Claimed, Continuation, FinishItem, FinishResult, FinishTo, Finished, Finishes, USAGE_EVENT,
};
use crate::domain::bounds::{Shape, json_bytes, json_depth, shortened};
use crate::domain::plan::{MAX_JSON_DEPTH, MAX_JSON_MEMORY};
use crate::domain::retry::{AfterFailure, RetryPolicy, after_failure};
use crate::domain::{NewArtifact, NewEvent, Outcome, StepError, StepId, Verdict, WakeUp};
use crate::error::Error;
use crate::telemetry;

/// Between the tries to record an end.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// Longest message of an error that is kept, in bytes.
const MAX_MESSAGE_BYTES: usize = 4 << 10;
/// Largest details of an error, payload of an event or metadata of an artifact, in bytes.
const MAX_DETAILS_BYTES: usize = 64 << 10;

/// Turns an outcome into the record of an attempt's end. `jitter` is in 0..1.
pub fn conclude(claimed: &Claimed, outcome: Outcome, outputs_limit: usize, jitter: f64) -> FinishItem {
    let policy =
        RetryPolicy { max_attempts: claimed.max_attempts, backoff: Duration::from_millis(claimed.backoff_ms.into()) };
    let (mut to, mut outputs, mut error, mut delay) = (FinishTo::Blocked, None, None, Duration::ZERO);
    match outcome.verdict {
        Verdict::Blocked => {}
        Verdict::Succeeded(map) => match kept_outputs(&map, outputs_limit) {
            Ok(kept) => {
                to = FinishTo::Succeeded;
                outputs = Some(kept);
            }
            Err(message) => {
                to = FinishTo::Failed;
                error = Some(StepError::new("outputs_too_large", message));
            }
        },
        Verdict::Failed { error: why, retryable, retry_after } => {
            error = Some(bounded(why));
            to = match after_failure(policy, claimed.failures, retryable, retry_after, jitter) {
                AfterFailure::Fail => FinishTo::Failed,
                AfterFailure::Retry(after) => {
                    delay = after;
                    FinishTo::Ready
                }
            };
        }
    }
    FinishItem {
        tenant_id: claimed.tenant_id.clone(),
        run_id: claimed.run_id,
        step_id: claimed.step_id,
        attempt: claimed.attempt,
        call: None,
        to,
        outputs,
        error,
        delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        artifacts: outcome
            .artifacts
            .into_iter()
            .map(|artifact| NewArtifact { metadata: bounded_value(artifact.metadata), ..artifact })
            .collect(),
        gates: outcome.gates,
        events: outcome
            .events
            .into_iter()
            .map(|event| NewEvent { payload: bounded_value(event.payload), ..event })
            .collect(),
    }
}

/// The text of outputs that can be stored and read back, or why there is none.
fn kept_outputs(outputs: &Map<String, Value>, most_bytes: usize) -> Result<Box<RawValue>, String> {
    let kept = serde_json::value::to_raw_value(outputs).map_err(|error| error.to_string())?;
    let Shape { bytes, depth, memory } = Shape::of(kept.get());
    if bytes > most_bytes {
        Err(format!("the outputs have {bytes} bytes; at most {most_bytes} are kept"))
    } else if depth > MAX_JSON_DEPTH {
        Err(format!("the outputs are nested {depth} levels deep; at most {MAX_JSON_DEPTH} are kept"))
    } else if memory > MAX_JSON_MEMORY {
        let most = MAX_JSON_MEMORY;
        Err(format!("the outputs have so many parts that they take {memory} bytes of memory; at most {most} are kept"))
    } else {
        Ok(kept)
    }
}

/// An error that fits into rows, pages and terminals.
fn bounded(error: StepError) -> StepError {
    StepError {
        code: shortened(&error.code, 100),
        message: shortened(&error.message, MAX_MESSAGE_BYTES),
        details: bounded_value(error.details),
    }
}

/// A value that is kept whole, or a note of its size in its place.
fn bounded_value(value: Value) -> Value {
    let bytes = json_bytes(&value);
    if bytes <= MAX_DETAILS_BYTES && json_depth(&value) <= MAX_JSON_DEPTH {
        return value;
    }
    json!({"omitted": format!("{bytes} bytes are too many, or too deeply nested, to be kept")})
}

/// What became of a batch of ends.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Steps that the invocation goes on with.
    pub claimed: Vec<Claimed>,
    /// Wake-ups that are owed now.
    pub ready: Vec<WakeUp>,
    /// Steps whose end could not be recorded: their attempts are recovered after the lease.
    pub unrecorded: Vec<StepId>,
}

impl Recorded {
    /// Takes in what a commit brought.
    pub fn take(&mut self, finishes: Finishes) {
        for item in &finishes.items {
            let (step_id, status) = (item.step_id, item.status);
            match item.result {
                FinishResult::Finished => info!(%step_id, %status, "finished"),
                FinishResult::Repeated => info!(%step_id, %status, "finished before"),
                FinishResult::Stale => warn!(%step_id, %status, "too late: the attempt no longer owned its step"),
            }
        }
        self.claimed.extend(finishes.claimed);
        self.ready.extend(finishes.ready);
    }
}

/// Records ends of attempts in one round trip, and again when the database is away for a moment. `next` says, for a call
/// of that name, what is left of the invocation that can go on.
pub async fn record_ends(ctx: &Ctx, items: Vec<FinishItem>, next: impl Fn(Uuid) -> Continuation) -> Recorded {
    let mut recorded = Recorded::default();
    let refused = match finish_patiently(ctx, &items, &next).await {
        Ok(finishes) => {
            record_late_usage(ctx, &items, &finishes).await;
            recorded.take(finishes);
            return recorded;
        }
        Err(error) => !matches!(error, Error::Unavailable { .. }),
    };
    for item in items {
        let id = item.step_id;
        // What one of them says cannot be stored: that must not keep the others from being recorded, nor the step itself
        // from ending.
        let alone = if refused { finish_alone(ctx, item, &next).await } else { None };
        match alone {
            Some(finishes) => recorded.take(finishes),
            None => recorded.unrecorded.push(id),
        }
    }
    recorded
}

/// None when it could not be recorded.
async fn finish_alone(ctx: &Ctx, item: FinishItem, next: impl Fn(Uuid) -> Continuation) -> Option<Finishes> {
    match finish_patiently(ctx, slice::from_ref(&item), &next).await {
        Ok(finishes) => {
            record_late_usage(ctx, slice::from_ref(&item), &finishes).await;
            Some(finishes)
        }
        Err(Error::Unavailable { .. }) => None,
        Err(error) => finish_patiently(ctx, &[unrecordable(item, &error)], &next).await.ok(),
    }
}

/// Records what attempts spent whose finish came too late: the money is gone, whoever owns the step now.
async fn record_late_usage(ctx: &Ctx, items: &[FinishItem], finishes: &Finishes) {
    let stale = |item: &&FinishItem| {
        let is = |end: &Finished| end.step_id == item.step_id && end.result == FinishResult::Stale;
        item.events.iter().any(|event| event.kind == USAGE_EVENT) && finishes.items.iter().any(is)
    };
    for item in items.iter().filter(stale) {
        if let Err(error) = step::attempt_usage_record(&ctx.db, item).await {
            telemetry::report(&error, "record what a late attempt spent");
        }
    }
}

async fn finish_patiently(
    ctx: &Ctx,
    items: &[FinishItem],
    next: impl Fn(Uuid) -> Continuation,
) -> Result<Finishes, Error> {
    let (call, mut pauses) = (Uuid::new_v4(), PAUSES.iter());
    loop {
        // The same call each time, with what is left then.
        let error = match step::steps_finish(&ctx.db, items, Some(&next(call))).await {
            Ok(finishes) => return Ok(finishes),
            Err(error) => error,
        };
        let pause = pauses.next().filter(|_| matches!(error, Error::Unavailable { .. }));
        let Some(pause) = pause else {
            telemetry::report(&error, "record the end of attempts");
            return Err(error);
        };
        sleep(*pause).await;
    }
}

fn unrecordable(item: FinishItem, why: &Error) -> FinishItem {
    FinishItem {
        to: FinishTo::Failed,
        outputs: None,
        error: Some(StepError::new("unrecordable", format!("the outcome cannot be stored: {why}"))),
        delay_ms: 0,
        artifacts: Vec::new(),
        gates: Vec::new(),
        events: Vec::new(),
        ..item
    }
}
