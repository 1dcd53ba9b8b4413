//! The end of an attempt: turns its outcome into a finish, and records it.

use std::slice;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::sleep;
use tracing::{Instrument, Span, info, warn};
use uuid::Uuid;

use crate::context::Ctx;
use crate::db::step::{
    self, Claimed, Continuation, FinishItem, FinishResult, FinishTo, Finished, Finishes, USAGE_EVENT,
};
use crate::domain::bounds::{Shape, json_bytes, json_depth, shortened};
use crate::domain::outcome::NewGateStatus;
use crate::domain::plan::{MAX_JSON_DEPTH, MAX_JSON_MEMORY};
use crate::domain::retry::{AfterFailure, RetryPolicy, after_failure};
use crate::domain::{NewArtifact, NewEvent, NewGate, Outcome, StepError, StepId, Verdict, WakeUp};
use crate::error::Error;
use crate::telemetry;

/// Delays between tries to record an end.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// Maximum length of an error's message. A longer one is cut.
const MAX_MESSAGE_BYTES: usize = 4 << 10;
/// Maximum size of an error's details, an event's payload or an artifact's metadata. Larger ones are replaced by a
/// note.
const MAX_DETAILS_BYTES: usize = 64 << 10;
/// Maximum size of a gate's subject. Each of its events contains it.
const MAX_SUBJECT_BYTES: usize = 4 << 10;

/// The finish of an attempt that ended with this outcome. `jitter` is in 0..1.
pub fn finish_item(claimed: &Claimed, outcome: Outcome, outputs_limit: usize, jitter: f64) -> FinishItem {
    let policy =
        RetryPolicy { max_attempts: claimed.max_attempts, backoff: Duration::from_millis(claimed.backoff_ms.into()) };
    let (mut to, mut outputs, mut error, mut delay) = (FinishTo::Blocked, None, None, Duration::ZERO);
    let gates: Vec<_> = outcome.gates.into_iter().map(bounded_gate).collect();
    match outcome.verdict {
        Verdict::Blocked => {
            // Without a pending gate the step would wait forever. With two, one would outlive it.
            if gates.iter().filter(|gate| gate.status == NewGateStatus::Pending).count() != 1 {
                to = FinishTo::Failed;
                let message = "the handler blocked the step without exactly one pending gate; this is a defect in NOFX";
                error = Some(StepError::new("blocked_without_gate", message));
            }
        }
        Verdict::Succeeded(map) => match stored_outputs(&map, outputs_limit) {
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
        gates,
        events: outcome
            .events
            .into_iter()
            .map(|event| NewEvent { payload: bounded_value(event.payload), ..event })
            .collect(),
        made_by: None,
    }
}

/// The JSON text of outputs within their limits, or why they cannot be stored.
fn stored_outputs(outputs: &Map<String, Value>, max_bytes: usize) -> Result<Box<RawValue>, String> {
    let kept = serde_json::value::to_raw_value(outputs).map_err(|error| error.to_string())?;
    let Shape { bytes, depth, memory } = Shape::of(kept.get());
    if bytes > max_bytes {
        Err(format!("the outputs have {bytes} bytes; at most {max_bytes} are kept"))
    } else if depth > MAX_JSON_DEPTH {
        Err(format!("the outputs are nested {depth} levels deep; at most {MAX_JSON_DEPTH} are kept"))
    } else if memory > MAX_JSON_MEMORY {
        let max = MAX_JSON_MEMORY;
        Err(format!("the outputs have so many parts that they take {memory} bytes of memory; at most {max} are kept"))
    } else {
        Ok(kept)
    }
}

/// The error with its texts cut to their limits.
fn bounded(error: StepError) -> StepError {
    StepError {
        code: shortened(&error.code, 100),
        message: shortened(&error.message, MAX_MESSAGE_BYTES),
        details: bounded_value(error.details),
    }
}

/// The gate, with a note instead of its subject if that exceeds its limit. A decision about it then fits nothing.
fn bounded_gate(gate: NewGate) -> NewGate {
    let bounded = |subject: Map<String, Value>| {
        let bytes = json_bytes(&subject);
        let note = || Map::from_iter([("omitted".to_owned(), json!(format!("{bytes} bytes are too many to be kept")))]);
        if bytes <= MAX_SUBJECT_BYTES { subject } else { note() }
    };
    NewGate { subject: gate.subject.map(bounded), ..gate }
}

/// The value, or a note with its size if it exceeds the limits.
fn bounded_value(value: Value) -> Value {
    let bytes = json_bytes(&value);
    if bytes <= MAX_DETAILS_BYTES && json_depth(&value) <= MAX_JSON_DEPTH {
        return value;
    }
    json!({"omitted": format!("{bytes} bytes are too many, or too deeply nested, to be kept")})
}

/// The end of an attempt that is not recorded yet, and the span of its log lines.
pub struct AttemptEnd {
    pub item: FinishItem,
    pub span: Span,
}

/// Result of recording a batch of ends.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Steps that the invocation continues with.
    pub claimed: Vec<Claimed>,
    /// Wake-ups to send.
    pub ready: Vec<WakeUp>,
    /// Steps whose end could not be recorded. The sweeper recovers them after their lease.
    pub unrecorded: Vec<StepId>,
}

impl Recorded {
    /// The result of a commit. Calls `log` for each end.
    pub fn of(finishes: Finishes, log: impl FnMut(&Finished)) -> Self {
        finishes.items.iter().for_each(log);
        Self { claimed: finishes.claimed, ready: finishes.ready, unrecorded: Vec::new() }
    }
}

/// Logs how an attempt ended, in the current span.
pub fn log_finished(item: &FinishItem, finished: &Finished) {
    let (status, code) = (finished.status, item.error.as_ref().map(|error| error.code.as_str()));
    match finished.result {
        FinishResult::Finished => info!(%status, code, "finished"),
        FinishResult::Repeated => info!(%status, code, "finished before"),
        FinishResult::Stale => warn!(%status, code, "too late: the attempt no longer owned its step"),
    }
}

/// Records ends of attempts in one round trip, with retries while the database is unavailable. `next` gives the
/// continuation for a call id and the rest of the invocation.
pub async fn record_ends(ctx: &Ctx, ends: Vec<AttemptEnd>, next: impl Fn(Uuid) -> Continuation) -> Recorded {
    let (items, spans): (Vec<_>, Vec<_>) = ends.into_iter().map(|AttemptEnd { item, span }| (item, span)).unzip();
    match finish_with_retries(ctx, &items, &next).await {
        Ok(finishes) => {
            for (item, span) in items.iter().zip(&spans) {
                record_late_usage(ctx, item, &finishes).instrument(span.clone()).await;
            }
            Recorded::of(finishes, |finished| {
                let ended = items.iter().zip(&spans).find(|(item, _)| item.step_id == finished.step_id);
                if let Some((item, span)) = ended {
                    span.in_scope(|| log_finished(item, finished));
                }
            })
        }
        Err(error @ Error::Unavailable { .. }) => {
            telemetry::report(&error, "record the ends of attempts");
            for span in &spans {
                span.in_scope(log_unrecorded);
            }
            Recorded { unrecorded: items.iter().map(|item| item.step_id).collect(), ..Recorded::default() }
        }
        // One of them cannot be stored. Record each by itself, so that the others are recorded and its step ends too.
        Err(_) => {
            let mut recorded = Recorded::default();
            for (item, span) in items.into_iter().zip(spans) {
                let alone = record_alone(ctx, item, &next).instrument(span).await;
                recorded.claimed.extend(alone.claimed);
                recorded.ready.extend(alone.ready);
                recorded.unrecorded.extend(alone.unrecorded);
            }
            recorded
        }
    }
}

/// Records one end. If the database refuses it, records a failure instead.
async fn record_alone(ctx: &Ctx, item: FinishItem, next: impl Fn(Uuid) -> Continuation) -> Recorded {
    let id = item.step_id;
    let mut recorded = record_one(ctx, &item, &next).await;
    if let Err(error) = &recorded
        && !matches!(error, Error::Unavailable { .. })
    {
        recorded = record_one(ctx, &unrecordable(item, error), &next).await;
    }
    recorded.unwrap_or_else(|_| {
        log_unrecorded();
        Recorded { unrecorded: vec![id], ..Recorded::default() }
    })
}

async fn record_one(ctx: &Ctx, item: &FinishItem, next: impl Fn(Uuid) -> Continuation) -> Result<Recorded, Error> {
    let finishes = finish_with_retries(ctx, slice::from_ref(item), next)
        .await
        .inspect_err(|error| telemetry::report(error, "record the end of an attempt"))?;
    record_late_usage(ctx, item, &finishes).await;
    Ok(Recorded::of(finishes, |finished| log_finished(item, finished)))
}

fn log_unrecorded() {
    warn!("the end was not recorded: the step is recovered after its lease");
}

/// Records the usage events of an attempt whose finish was stale, because the tokens are paid for anyway.
async fn record_late_usage(ctx: &Ctx, item: &FinishItem, finishes: &Finishes) {
    let has_usage = item.events.iter().any(|event| event.kind == USAGE_EVENT);
    let is_late = |end: &Finished| end.step_id == item.step_id && end.result == FinishResult::Stale;
    if has_usage
        && finishes.items.iter().any(is_late)
        && let Err(error) = step::attempt_usage_record(&ctx.db, item).await
    {
        telemetry::report(&error, "record the usage of a late attempt");
    }
}

async fn finish_with_retries(
    ctx: &Ctx,
    items: &[FinishItem],
    next: impl Fn(Uuid) -> Continuation,
) -> Result<Finishes, Error> {
    let (call, mut delays) = (Uuid::new_v4(), RETRY_DELAYS.iter());
    loop {
        // The same call id each time, with the current rest of the invocation.
        let error = match step::steps_finish(&ctx.db, items, Some(&next(call))).await {
            Ok(finishes) => return Ok(finishes),
            Err(error) => error,
        };
        match delays.next().filter(|_| matches!(error, Error::Unavailable { .. })) {
            Some(delay) => sleep(*delay).await,
            None => return Err(error),
        }
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
        made_by: None,
        ..item
    }
}
