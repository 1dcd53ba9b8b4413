//! The gates of a run: a form for each pending gate, the decision of the others.

use maud::{Markup, html};

use super::icon::{PENDING_GATE, look, state};
use super::layout::Base;
use super::parts::time;
use shared::db::console::{Gate, Run};

/// Verb, label and colour of each decision.
const BUTTONS: [(&str, &str, &str); 3] =
    [("approve", "Approve", "good"), ("reject", "Reject", "bad"), ("waive", "Waive", "warn")];

/// Renders the gates. Each form contains `token`.
pub(super) fn gates(base: Base, run: &Run, token: &str) -> Markup {
    let gates = &run.gates;
    html! {
        section data-region="gates" aria-labelledby="gates" {
            @if !gates.is_empty() {
                h2 #gates { "Gates" }
                @for gate in gates.iter().filter(|gate| gate.is_pending()) { (pending(base, gate, token)) }
                ul.plain { @for gate in gates.iter().filter(|gate| !gate.is_pending()) { (decided(base, gate)) } }
                @if run.gates_total > gates.len() {
                    p.note {
                        (gates.len()) " of " (run.gates_total) " gates are shown. "
                        a href=(base.to("runs")) { "The inbox" } " lists every pending gate."
                    }
                }
            }
        }
    }
}

fn pending(base: Base, gate: &Gate, token: &str) -> Markup {
    html! {
        article.gate id={ "gate-" (gate.id) } {
            // A pending gate needs action, so it has a warning colour.
            h3 id={ "title-" (gate.id) } { (gate.gate_type) " " (state(PENDING_GATE)) }
            p.note {
                (blocked_by(gate)) ", requested " (time(&gate.created_at))
                @if let Some(at) = &gate.expires_at { ", expires " (time(at)) }
            }
            @if let Some(reason) = &gate.reason { p.quote { bdi { (reason) } } }
            (evidence(base, gate))
            @if gate.is_about_change() {
                // Nobody should decide about a difference without seeing it.
                p { a.button href={ (base.to("gates/")) (gate.id) } { "See the difference and decide" } }
            } @else {
                (form(base, gate, token))
            }
        }
    }
}

fn decided(base: Base, gate: &Gate) -> Markup {
    html! {
        li id={ "gate-" (gate.id) } {
            strong { (gate.gate_type) } " " (state(look(gate.status)))
            span.note {
                " " (blocked_by(gate))
                @if let Some(actor) = &gate.actor { ", by " bdi { (actor) } }
                @if let Some(at) = &gate.decided_at { ", " (time(at)) }
            }
            @if let Some(reason) = &gate.reason { p.quote { bdi { (reason) } } }
            @if let (Some(actor), Some(reason)) = (&gate.actor, &gate.decision_reason) {
                p.quote { bdi { (actor) } ": " bdi { (reason) } }
            }
            (evidence(base, gate))
        }
    }
}

/// Who decided, when, and why.
pub(super) fn said(gate: &Gate) -> Markup {
    html! {
        @if let (Some(actor), Some(at)) = (&gate.actor, &gate.decided_at) {
            p { (gate.status) " by " strong { bdi { (actor) } } ", " (time(at)) }
            @if let Some(reason) = &gate.decision_reason { p.quote { bdi { (reason) } } }
        }
    }
}

/// What the gate blocks.
pub(super) fn blocked_by(gate: &Gate) -> Markup {
    html! { @if let Some(step) = &gate.step { "step " bdi { (step) } } @else { "the run itself" } }
}

/// A link to what the gate relies on.
pub(super) fn evidence(base: Base, gate: &Gate) -> Markup {
    if let (Some(id), Some(super::EVIDENCE)) = (gate.evidence_id, gate.evidence_type.as_deref()) {
        return html! { div.note { a href={ (base.to("evidence/")) (id) } { "Evidence" } } };
    }
    if gate.is_about_change() {
        return html! { div.note { a href={ (base.to("gates/")) (gate.id) } { "The difference" } } };
    }
    html! {
        @if let Some(uri) = &gate.evidence_uri {
            div.note {
                "Evidence: "
                // The creator of the gate chose the address, so link it only if it is one of our artifacts.
                @if let Some(id) = gate.evidence_id {
                    a href={ (base.to("artifacts/signed")) "?id=" (id) } { (uri) }
                } @else { (uri) }
            }
        }
    }
}

pub(super) fn form(base: Base, gate: &Gate, token: &str) -> Markup {
    let verb = |verb: &str| base.to(&format!("gates/{}/{verb}", gate.id));
    let title = format!("title-{}", gate.id);
    html! {
        form method="post" action=(verb("approve")) aria-labelledby=(title) {
            // The enter key presses the first button. Disable that one, so that each decision needs a click.
            button type="submit" disabled hidden {}
            input type="hidden" name="csrf" value=(token);
            div.fields {
                label for={ "actor-" (gate.id) } { "Your name" }
                input id={ "actor-" (gate.id) } name="actor" required maxlength="200" autocomplete="name";
                label for={ "reason-" (gate.id) } { "Reason" }
                textarea id={ "reason-" (gate.id) } name="reason" maxlength="2000" rows="2" {}
            }
            div.buttons {
                @for (word, label, class) in BUTTONS {
                    button.(class) type="submit" formaction=(verb(word)) aria-describedby=(title) { (label) }
                }
            }
            p.note { "Waive lets the gate pass without approval. Name and reason are recorded." }
        }
    }
}
