//! What every log line about a step carries.

use tracing::{Span, info_span};

use crate::db::step::Claimed;
use crate::domain::tool::HandlerSpec;
use crate::domain::trace::TraceParent;
use crate::queue::Message;

/// Of an attempt: everything that is logged while it works, and about its end.
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

/// Of a wake-up that has led to no attempt: it names neither a tool nor an attempt.
pub(super) fn of_wakeup(message: &Message, handler: &HandlerSpec) -> Span {
    info_span!(
        "wakeup",
        run_id = %message.run_id,
        step_id = %message.step_id,
        tenant_id = %message.tenant_id,
        handler = handler.name,
    )
}
