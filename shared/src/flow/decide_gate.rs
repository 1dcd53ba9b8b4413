//! Approves, rejects and waives gates.

use super::attest_decision::attest;
use super::link_gate::unusable;
use super::wake;
use crate::context::Ctx;
use crate::db::Session;
use crate::db::gate::{self, GateDecided, GateDecision};
use crate::db::link::LinkProof;
use crate::domain::GateStatus;
use crate::domain::gate::Decision;
use crate::error::{Code, Error};
use crate::view::{Gate, WhyNot};

/// Decides a pending gate and sends the wake-ups of steps that become ready. If the rule requires more approvals, the gate
/// stays pending. A decision about a gate that is not pending is a conflict and changes nothing. A rejection or a waiver
/// without a reason is invalid.
pub async fn decide_gate(ctx: &Ctx, session: &Session, decision: &GateDecision<'_>) -> Result<Gate, Error> {
    decide_gate_with(ctx, session, decision, None).await
}

/// The same, with a link, which is used up if the decision is recorded. Everything that counts without a link counts with it.
pub async fn decide_gate_with(
    ctx: &Ctx,
    session: &Session,
    decision: &GateDecision<'_>,
    link: Option<&LinkProof>,
) -> Result<Gate, Error> {
    if let Err(rule) = decision.decision.check_reason(decision.reason) {
        return Err(Error::invalid("reason", rule));
    }
    let read = gate::gate_fetch(session, decision.gate_id).await?;
    let read = read.ok_or_else(|| Error::NotFound(format!("gate {}", decision.gate_id)))?;
    if decision.seen.is_some() && decision.seen != read.digest.as_deref() {
        return Err(Error::GateChanged(vec!["digest".to_owned()]));
    }
    // The signature covers the gate as it was read here.
    let decision = &GateDecision { seen: read.digest.as_deref(), ..*decision };
    // Without a signature nothing is decided, even if it has become possible meanwhile.
    let envelope = if may_decide(&read, decision.decision) {
        Some(attest(ctx, &read, session.principal().await?, decision).await?)
    } else {
        None
    };
    match gate::gate_decide(session, decision, envelope.as_ref(), link).await? {
        GateDecided::Decided { gate, ready } => {
            wake(&ctx.queue, ready).await;
            Ok(gate)
        }
        GateDecided::Recorded { gate } | GateDecided::Unchanged { gate } => Ok(gate),
        GateDecided::Excluded { why } => Err(excluded(why)),
        GateDecided::Changed { changed } => Err(Error::GateChanged(changed)),
        GateDecided::Link { why } => Err(unusable(why)),
        GateDecided::Conflict { gate } => Err(conflict(&gate)),
        GateDecided::NotFound => Err(Error::NotFound(format!("gate {}", decision.gate_id))),
    }
}

/// Whether the caller may make this decision, according to the gate that was read.
fn may_decide(gate: &Gate, decision: Decision) -> bool {
    gate.standing.may_decide.is_some_and(|may| match decision {
        Decision::Waive => may.waive,
        // A person who has approved may still reject, and so may one whom a budget does not ask.
        Decision::Reject => may.ok || may.why.is_some_and(|why| why == WhyNot::Done || why.asks_nobody()),
        Decision::Approve => may.ok,
    })
}

fn excluded(why: WhyNot) -> Error {
    let code = if why == WhyNot::OwnWork { Code::SelfApproval } else { Code::ApprovalRule };
    Error::Excluded(code, why.sentence().to_owned())
}

/// Why a gate that does not wait takes no decision.
pub(super) fn conflict(gate: &Gate) -> Error {
    let by = gate.decision.as_ref().map(|decision| format!(" by {}", decision.actor)).unwrap_or_default();
    let (code, detail) = match gate.status {
        GateStatus::Pending => (Code::GateExpired, "the gate's time is over".to_owned()),
        GateStatus::Expired => (Code::GateExpired, "nobody decided the gate before it expired".to_owned()),
        GateStatus::Cancelled => (
            Code::GateDecided,
            "the gate was cancelled before anybody decided: its run needs no decision any more".to_owned(),
        ),
        status => (Code::GateDecided, format!("the gate has been decided already: it is {status}{by}")),
    };
    Error::Conflict(code, detail)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_late_decision_hears_of_another_one_only_if_there_was_one() {
        let late = |status: &str, by: Option<&str>| {
            let id = "0193c0de-0000-7000-8000-000000000001";
            let at = "2026-11-23T10:00:00+00:00";
            let decision = by.map(|actor| json!({"decision": "approve", "actor": actor, "created_at": at}));
            let gate = json!({
                "id": id, "run_id": id, "gate_type": "manual:release", "status": status, "on_pass": "release",
                "generation": 1, "created_at": at, "decision": decision,
            });
            let error = conflict(&serde_json::from_value(gate).unwrap());
            (error.code(), error.to_string())
        };
        let decided = "the gate has been decided already: it is passed by ann";
        assert_eq!(late("passed", Some("ann")), (Code::GateDecided, decided.to_owned()));
        for (status, code, words) in [
            ("cancelled", Code::GateDecided, "was cancelled before anybody decided"),
            ("expired", Code::GateExpired, "nobody decided the gate before it expired"),
            ("pending", Code::GateExpired, "the gate's time is over"),
        ] {
            let (found, sentence) = late(status, None);
            assert_eq!(found, code, "{status}");
            assert!(sentence.contains(words) && !sentence.contains("decided already"), "{sentence}");
        }
    }
}
