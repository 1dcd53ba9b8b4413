//! Describes the routes of this function for `openapi.json`.

use axum::http::Method;
use serde_json::{Value, json};
use shared::domain::access::MAX_EMAIL_BYTES;
use shared::domain::gate::{APPROVAL, Decision, GATE_CHANGE, ON_EVIDENCE};
use shared::error::Code;
use shared::flow::link_gate::{DEFAULT_LINK_S, LINK_S};
use shared::http::MAX_REASON_CHARS;
use shared::http::contract::{FILLED, Operation, Schemas, line, object, readable_line, readable_text, who_and_why};
use shared::view::{Gate, GateLink};

use crate::{DECISION, LINK, MAX_EXPIRY_S, NEW_GATE};

const GATES: &str = "Gates";

/// Every route.
pub fn contract(schemas: &mut Schemas) -> Vec<Operation> {
    let example = json!({"run_id": "0198c0de-0000-7000-8000-000000000001", "gate_type": "security review",
        "expires_after_s": 3600});
    let mut decide = |path, id, summary, decision: Decision| {
        let example = |reason: &str| json!({"actor": "ann", "reason": reason});
        let operation = Operation::new(Method::POST, path, id, GATES, summary);
        let operation = match decision {
            Decision::Approve => operation.may_take(object(DECISION, &[], decided), example("looks good")),
            _ => operation.takes(object(DECISION, &["reason"], who_and_needed_why), example("not needed here")),
        };
        operation.answers(200, "The gate. It stays pending if more must approve.", schemas.of::<Gate>()).refuses(&[
            Code::ApprovalRule,
            Code::SelfApproval,
            Code::GateChanged,
            Code::GateDecided,
            Code::GateExpired,
            Code::SigningUnavailable,
        ])
    };
    let decisions = [
        decide("/gates/{id}/approve", "approveGate", "Approve a gate.", Decision::Approve).example("run", "approve"),
        decide("/gates/{id}/reject", "rejectGate", "Reject a gate: its step or run fails.", Decision::Reject),
        decide(
            "/gates/{id}/waive",
            "waiveGate",
            "Pass a gate without evidence. The record says that it was waived.",
            Decision::Waive,
        ),
    ];
    let others = [
        Operation::new(
            Method::POST,
            "/gates",
            "createGate",
            GATES,
            "Put a gate before a run's end or before one of its steps.",
        )
        .takes(new_gate(), example)
        .answers(201, "The gate.", schemas.of::<Gate>())
        .refuses(&[Code::NotFound, Code::AlreadyStarted]),
        Operation::new(
            Method::GET,
            "/gates",
            "listGates",
            GATES,
            "List the gates that wait for a decision, oldest first.",
        )
        .answers(200, "A page.", schemas.list_of::<Gate>())
        .with("Link"),
        Operation::new(Method::GET, "/gates/{id}", "fetchGate", GATES, "Read a gate.").answers(
            200,
            "The gate.",
            schemas.of::<Gate>(),
        ),
        Operation::new(
            Method::POST,
            "/gates/{id}/links",
            "linkGate",
            GATES,
            "Make a one-time link to a gate for one person.",
        )
        .takes(object(LINK, &["for"], new_link), json!({"for": "ann@acme.test"}))
        .answers(201, "The link.", schemas.of::<GateLink>())
        .refuses(&[Code::GateDecided, Code::GateExpired]),
    ];
    others.into_iter().chain(decisions).collect()
}

fn who_and_needed_why(field: &str) -> Value {
    match field {
        "reason" => json!({
            "description": "Why. It must not be blank.",
            "type": "string", "minLength": 1, "maxLength": MAX_REASON_CHARS, "pattern": readable_text(),
        }),
        other => decided(other),
    }
}

fn decided(field: &str) -> Value {
    match field {
        "digest" => json!({
            "description": "The `digest` that you have seen.",
            "type": ["string", "null"], "maxLength": 64,
        }),
        other => who_and_why(other),
    }
}

fn new_link(field: &str) -> Value {
    match field {
        "for" => json!({
            "description": "A member who may approve the gate: the subject or the e-mail address.",
            "type": "string", "minLength": 1, "maxLength": MAX_EMAIL_BYTES, "pattern": FILLED,
        }),
        _ => json!({
            "description": "Seconds until it expires.",
            "type": ["integer", "null"], "minimum": LINK_S.start(), "maximum": LINK_S.end(), "default": DEFAULT_LINK_S,
        }),
    }
}

fn new_gate() -> Value {
    object(NEW_GATE, &["run_id", "gate_type"], |field| match field {
        "run_id" => json!({"description": "The run.", "type": "string", "format": "uuid"}),
        "step_id" => json!({
            "description": "The step that waits for the gate. Without it, the end of the run waits.",
            "type": ["string", "null"], "format": "uuid",
        }),
        "gate_type" => json!({
            "description": format!(
                "What the gate is about. Only the system creates gates {ON_EVIDENCE}<what>, {APPROVAL}<tool> and {GATE_CHANGE}."
            ),
            "type": "string", "minLength": 1, "maxLength": 100, "pattern": readable_line(),
            "not": {"pattern": format!("^({ON_EVIDENCE}|{APPROVAL}|{GATE_CHANGE}$)")},
        }),
        "evidence_uri" => json!({
            "description": "Where the evidence is.", "type": ["string", "null"], "maxLength": 2_000, "pattern": line(),
        }),
        "expires_after_s" => json!({
            "description": "Seconds until the gate expires. By default it never expires.",
            "type": ["integer", "null"], "minimum": 1, "maximum": MAX_EXPIRY_S,
        }),
        other => who_and_why(other),
    })
}
