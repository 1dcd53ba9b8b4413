//! The gates of a run: forms for those that wait, the record of the others.

use maud::{Markup, html};

use super::layout::{Base, badge, moment};
use crate::view::Gate;

/// The gates. `token` goes into each form.
pub(super) fn gates(base: Base, gates: &[Gate], token: &str) -> Markup {
    html! {
        section data-region="gates" aria-labelledby="gates" {
            @if !gates.is_empty() {
                h2 #gates { "Gates" }
                @for gate in gates { (card(base, gate, token)) }
            }
        }
    }
}

fn card(base: Base, gate: &Gate, token: &str) -> Markup {
    html! {
        article.gate .waits[gate.is_pending()] id={ "gate-" (gate.id) } {
            h3 id={ "title-" (gate.id) } {
                (gate.gate_type) " "
                // Of a gate, pending is what somebody has to act upon.
                @if gate.is_pending() { span.badge.warn { "pending" } } @else { (badge(&gate.status)) }
            }
            p.note {
                @if let Some(step) = &gate.step { "Step " bdi { (step) } } @else { "The run itself" }
                ", asked " (moment(&gate.created_at))
                @if let (true, Some(at)) = (gate.is_pending(), &gate.expires_at) { ", expires " (moment(at)) }
            }
            @if let Some(reason) = &gate.reason { p.quote { bdi { (reason) } } }
            @if let Some(uri) = &gate.evidence_uri {
                p {
                    "Evidence: "
                    // Whoever made the gate chose the address: only what is one of our artifacts becomes a link.
                    @if let Some(id) = gate.evidence_id {
                        a href={ (base.to("artifacts/signed")) "?id=" (id) } { (uri) }
                    } @else { span.long { (uri) } }
                }
            }
            @if gate.is_pending() { (form(base, gate, token)) } @else { (record(gate)) }
        }
    }
}

fn record(gate: &Gate) -> Markup {
    html! {
        p {
            @if let Some(actor) = &gate.actor { bdi { (gate.status) " by " (actor) } } @else { (gate.status) }
            @if let Some(at) = &gate.decided_at { ", " (moment(at)) }
            @if let Some(reason) = &gate.decision_reason { ": " bdi { (reason) } }
        }
    }
}

fn form(base: Base, gate: &Gate, token: &str) -> Markup {
    let verb = |verb: &str| base.to(&format!("gates/{}/{verb}", gate.id));
    let title = format!("title-{}", gate.id);
    html! {
        form method="post" action=(verb("approve")) aria-labelledby=(title) {
            // The first button is what the enter key presses: a decision has to be pressed itself.
            button type="submit" disabled hidden {}
            input type="hidden" name="csrf" value=(token);
            div.fields {
                label for={ "actor-" (gate.id) } { "Your name" }
                input id={ "actor-" (gate.id) } name="actor" required maxlength="200" autocomplete="name";
                label for={ "reason-" (gate.id) } { "Reason" }
                textarea id={ "reason-" (gate.id) } name="reason" maxlength="2000" rows="2" {}
            }
            div.buttons {
                @for (word, label, class) in [("approve", "Approve", "good"), ("reject", "Reject", "bad"), ("waive", "Waive", "warn")] {
                    button.(class) type="submit" formaction=(verb(word)) aria-describedby=(title) { (label) }
                }
            }
            p.note { "Waive lets it pass although it was not shown to be right. Name and reason stay in the record." }
        }
    }
}
