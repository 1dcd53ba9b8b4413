//! A decision that came after the gate was decided, or after its time.

use maud::{Markup, html};
use shared::db::console::Gate;
use shared::domain::GateStatus;
use shared::domain::gate::Decision;

use super::{Refusal, Refused, said};
use crate::page::layout::Base;
use crate::page::parts::{notice, person, section};
use crate::page::source::visible;

/// Whose decision is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recorded {
    /// The same decision by the same name: the form was sent twice.
    This,
    /// Another decision by the same name.
    Own,
    /// Somebody else's, or none.
    Other,
}

impl Recorded {
    fn of(gate: &Gate, refused: Refused<'_>) -> Self {
        let made = match gate.status {
            GateStatus::Passed => Some(Decision::Approve),
            GateStatus::Failed => Some(Decision::Reject),
            GateStatus::Waived => Some(Decision::Waive),
            GateStatus::Pending | GateStatus::Expired | GateStatus::Cancelled => None,
        };
        match (&gate.actor, made) {
            (Some(actor), Some(made)) if actor == refused.actor.trim() => {
                if made == refused.decision {
                    Self::This
                } else {
                    Self::Own
                }
            }
            _ => Self::Other,
        }
    }
}

pub(super) fn title(gate: &Gate, refused: Refused<'_>) -> Markup {
    html! {
        @match Recorded::of(gate, refused) {
            Recorded::This => "Your decision is recorded already",
            Recorded::Own => "You have decided already",
            Recorded::Other => "Your decision came too late",
        }
    }
}

pub(super) fn late(gate: &Gate, refused: Refused<'_>) -> Markup {
    let recorded = Recorded::of(gate, refused);
    let sentence = match refused.why {
        Refusal::Conflict(sentence) => sentence,
        Refusal::Form(_) | Refusal::Problems(_) | Refusal::Excluded(_) | Refusal::Changed(_) => {
            "nobody can decide this gate any more"
        }
    };
    let who = if gate.actor.is_some() { " The first decision counts." } else { "" };
    let name = person(refused.actor.trim());
    let is_same_reason = gate.decision_reason.as_deref().unwrap_or_default() == refused.reason.trim();
    html! {
        @match recorded {
            Recorded::This => (notice("good", "good", "status", &html! {
                p { strong { "A decision by " (name) " is recorded already." } " Sending the form again changed nothing." }
            })),
            Recorded::Own => (notice("warn", "decide", "alert", &html! {
                p { strong { "This second decision was not recorded." } " A decision by " (name) " is recorded already, and the first one counts." }
            })),
            Recorded::Other => (notice("warn", "decide", "alert", &html! {
                p { strong { "Your decision was not recorded: " } bdi { (visible(sentence)) } "." (who) }
            })),
        }
        (said(gate))
        @if recorded != Recorded::This || !is_same_reason { (yours(refused)) }
    }
}

/// What was typed, so that nobody has to write it again.
fn yours(refused: Refused<'_>) -> Markup {
    let wish = match refused.decision {
        Decision::Approve => "approve",
        Decision::Reject => "reject",
        Decision::Waive => "waive",
    };
    section(
        "yours",
        "What you wrote",
        &html! {},
        &html! {
            @if refused.reason.is_empty() { p.note { "No reason." } } @else { p.quote { bdi { (visible(refused.reason)) } } }
            p.note { (person(refused.actor)) " wanted to " (wish) }
        },
    )
}

pub(super) fn what_now(base: Base, gate: &Gate) -> Markup {
    let run = base.to(&format!("runs/{}", gate.run_id));
    section(
        "now",
        "What you can do",
        &html! {},
        &html! {
            p { a href=(run) { "Open the run" } @if gate.actor.is_some() { " to see what the decision did" } "." }
            @if matches!(gate.status, GateStatus::Failed | GateStatus::Expired | GateStatus::Cancelled) {
                p { "A retry of the run asks again." }
            }
            p { a href=(base.to("inbox")) { "Go on with the inbox" } }
        },
    )
}
