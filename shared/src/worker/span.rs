//! Spans: the fields of every log line about a step.

use tracing::{Span, info_span};

use crate::db::step::Claimed;
use crate::domain::tool::HandlerSpec;
use crate::domain::trace::TraceParent;
use crate::queue::Message;

/// The span of an attempt, for log lines while it runs and about its end.
pub(super) fn of_attempt(claimed: &Claimed) -> Span {
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

/// The span of a wake-up that led to no attempt, so it has no tool and no attempt.
pub(super) fn of_wakeup(message: &Message, handler: &HandlerSpec) -> Span {
    info_span!(
        "wakeup",
        run_id = %message.run_id,
        step_id = %message.step_id,
        tenant_id = %message.tenant_id,
        handler = handler.name,
    )
}
