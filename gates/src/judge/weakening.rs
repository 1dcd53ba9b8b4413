//! A change that weakens its own checks never passes silently: a person must see exactly that difference, or the tenant's
//! policy refuses it.

use serde_json::{Map, Value, json};
use shared::domain::digest::canonical_sha256;
use shared::domain::policy::OnWeakening;

use super::request::{Approved, NewAttachment, Question, Request};
use super::{Case, Stop};
use crate::evidence::{Approval, DoubtCode, Weakening};
use crate::finding::Reason;

/// How many weakenings a question names.
const NAMED: usize = 5;

/// Goes on if there is no weakening, or if a person approved or waived these very ones. Returns whether somebody did.
pub fn settle(weakenings: &[Weakening], request: &Request, case: &mut Case) -> Result<bool, Stop> {
    let listed = case.evidence.integrity.get_or_insert_default();
    listed.total += weakenings.len() as u64;
    let room = crate::evidence::MAX_LISTED.saturating_sub(listed.listed.len());
    listed.listed.extend(weakenings.iter().take(room).cloned());
    if weakenings.is_empty() {
        return Ok(false);
    }
    let summary = summary(weakenings);
    if request.policy.on_weakening == OnWeakening::Fail {
        let message = format!("the change weakens its own checks, and the policy does not allow that: {summary}");
        return Err(Reason::new("checks_weakened", message).into());
    }
    let subject = subject(weakenings, case)?;
    if let Some(approved) = request.approvals.iter().find(|approved| approved.subject == subject) {
        case.evidence.approvals.push(approval(approved, &subject));
        if approved.waived {
            case.doubt(DoubtCode::ChangeWaived);
        }
        return Ok(true);
    }
    let document = json!({ "subject": subject, "weakenings": weakenings });
    case.attachments.push(NewAttachment {
        name: "gate-change.json".to_owned(),
        media_type: "application/json",
        bytes: serde_json::to_vec_pretty(&document).unwrap_or_default(),
    });
    let text = format!("The change weakens its own checks. Approve it if that is intended. {summary}");
    Err(Stop::Ask(Question { text, subject }))
}

/// What a decision is about: these bytes, compared with these bytes, and this difference.
fn subject(weakenings: &[Weakening], case: &Case) -> Result<Map<String, Value>, Stop> {
    let difference = canonical_sha256(&weakenings)
        .map_err(|error| Reason::new("gate_stopped", format!("the difference has no digest: {error}")))?;
    let tree = case.evidence.subject.as_ref().map(|subject| &subject.tree);
    let fields = json!({ "tree": tree, "base": case.evidence.base.tree, "difference": difference });
    Ok(fields.as_object().cloned().unwrap_or_default())
}

fn approval(approved: &Approved, subject: &Map<String, Value>) -> Approval {
    let difference = subject.get("difference").and_then(Value::as_str).unwrap_or_default();
    Approval {
        gate_id: approved.gate_id.clone(),
        by: approved.by.clone(),
        at: approved.at.clone(),
        subject: difference.to_owned(),
        waived: approved.waived,
    }
}

fn summary(weakenings: &[Weakening]) -> String {
    let one = |weakening: &Weakening| match weakening.line {
        Some(line) => format!("{}:{line}: {}", weakening.path, weakening.message),
        None => format!("{}: {}", weakening.path, weakening.message),
    };
    let named: Vec<String> = weakenings.iter().take(NAMED).map(one).collect();
    let rest = weakenings.len().saturating_sub(NAMED);
    let more = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    format!("{}{more}", named.join("; "))
}
