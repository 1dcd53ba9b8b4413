//! Approves, rejects and waives gates.

use super::wake;
use crate::context::Ctx;
use crate::db::gate::{self, GateDecided, GateDecision};
use crate::domain::GateStatus;
use crate::error::{Code, Error};
use crate::view::Gate;

/// Decides a pending gate and sends the wake-ups of steps that become ready. A second decision is a conflict and
/// changes nothing. To reject or waive without a reason is invalid.
pub async fn decide_gate(ctx: &Ctx, decision: &GateDecision<'_>) -> Result<Gate, Error> {
    if let Err(rule) = decision.decision.check_reason(decision.reason) {
        return Err(Error::invalid("reason", rule));
    }
    match gate::gate_decide(&ctx.db, decision).await? {
        GateDecided::Decided { gate, ready } => {
            wake(&ctx.queue, ready).await;
            Ok(gate)
        }
        GateDecided::Conflict { gate } => Err(conflict(&gate)),
        GateDecided::NotFound => Err(Error::NotFound(format!("gate {}", decision.gate_id))),
    }
}

fn conflict(gate: &Gate) -> Error {
    let by = gate.decision.as_ref().map(|decision| format!(" by {}", decision.actor)).unwrap_or_default();
    let (code, detail) = match gate.status {
        GateStatus::Pending => (Code::GateExpired, "the gate's time is over".to_owned()),
        GateStatus::Expired => (Code::GateExpired, "nobody decided the gate before it expired".to_owned()),
        GateStatus::Cancelled => {
            (Code::GateDecided, "the gate was cancelled before anybody decided: its run needs no decision any more".to_owned())
        }
        status => (Code::GateDecided, format!("the gate has been decided already: it is {status}{by}")),
    };
    Error::Conflict(code, detail)
}
