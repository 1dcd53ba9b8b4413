//! Approve, reject, waive.

use serde_json::Value;

use super::wake;
use crate::context::Ctx;
use crate::db::gate::{self, GateDecision};
use crate::error::Error;

/// Decides a pending gate and wakes what becomes ready. A second decision is a conflict and changes nothing.
pub async fn decide_gate(ctx: &Ctx, decision: &GateDecision<'_>) -> Result<Value, Error> {
    let decided = gate::gate_decide(&ctx.db, decision).await?;
    let gate = decided.gate.unwrap_or_default();
    match decided.result.as_str() {
        "decided" => {
            wake(&ctx.queue, decided.ready).await;
            Ok(gate)
        }
        "conflict" => {
            let status = gate["status"].as_str().unwrap_or("decided");
            let by = gate["decision"]["actor"].as_str().map(|actor| format!(" by {actor}")).unwrap_or_default();
            Err(Error::Conflict(match status {
                "pending" => "the gate's time is over".to_owned(),
                _ => format!("the gate has been decided already: it is {status}{by}"),
            }))
        }
        _ => Err(Error::NotFound(format!("gate {}", decision.gate_id))),
    }
}
