//! The gates of a run, in a list. The page of a gate shows what it is about, and has the form.

use maud::{Markup, html};
use shared::db::console::{AttemptAt, Gate, Run};
use shared::domain::gate::{APPROVAL, BUDGET, Decision, GATE_CHANGE};
use shared::domain::{GateStatus, RunId};

use super::icon::{Look, PENDING_GATE, look, mark};
use super::layout::Base;
use super::parts::{elapsed, person, section, time};
use super::source::visible;

/// How a gate looks.
pub(super) fn look_of(gate: &Gate) -> Look {
    if gate.is_pending() { PENDING_GATE } else { look(gate.status) }
}

/// What a person made of a gate, or the state of a gate that nobody decided.
pub(super) fn verdict(status: GateStatus) -> &'static str {
    match status {
        GateStatus::Passed => Decision::Approve.participle(),
        GateStatus::Failed => Decision::Reject.participle(),
        GateStatus::Waived => Decision::Waive.participle(),
        GateStatus::Pending | GateStatus::Expired | GateStatus::Cancelled => look(status).word,
    }
}

/// What a gate decides about, in words: `release` for `manual:release`. Any text can be a type.
pub(super) fn words_of(gate_type: &str) -> String {
    match gate_type.strip_prefix("manual:") {
        _ if gate_type == GATE_CHANGE => "change of checks".to_owned(),
        Some(what) => visible(&what.replace(['-', '_'], " ")),
        None => match gate_type.strip_prefix(APPROVAL) {
            Some(tool) => format!("a step with {}", visible(tool)),
            None => visible(gate_type),
        },
    }
}

/// The gates of a run, pending ones first.
pub(super) fn gates(base: Base, run: &Run) -> Markup {
    let gates = &run.gates;
    let (pending, decided): (Vec<&Gate>, Vec<&Gate>) = gates.iter().partition(|gate| gate.is_pending());
    let body = html! {
        ul.proofs { @for gate in pending.into_iter().chain(decided) { (item(base, gate)) } }
        @if run.gates_total > gates.len() {
            p.note {
                (gates.len()) " of " (run.gates_total) " gates are shown. "
                a href=(base.to("inbox")) { "The inbox" } " lists every pending gate."
            }
        }
    };
    if gates.is_empty() {
        // The script replaces a region only by one of the same name, so an empty one stays in its place.
        return html! { section data-region="gates" aria-label="Gates" {} };
    }
    section("gates", "Gates", &html! { p.note { (run.gates_total) } }, &body)
}

fn item(base: Base, gate: &Gate) -> Markup {
    let page = format!("{}{}", base.to("gates/"), gate.id);
    html! {
        li id={ "gate-" (gate.id) } data-row {
            (mark(look_of(gate)))
            span {
                b { a href=(page) { bdi { (visible(&gate.gate_type)) } } }
                div.note { (blocked_by(gate)) }
            }
            span {
                @if let Some(reason) = &gate.reason { bdi { (visible(reason)) } }
                div.note {
                    @if gate.is_pending() { "waits " (elapsed(&gate.created_at)) }
                    @if let Some(actor) = &gate.actor { (verdict(gate.status)) " by " (person(actor)) " " }
                    @if let Some(at) = &gate.decided_at { (time(at)) }
                }
            }
            @if gate.is_pending() { a href=(page) { @if gate.gate_type == BUDGET { "look" } @else { "decide" } } } @else { (evidence(base, gate)) }
        }
    }
}

/// What the gate blocks.
pub(super) fn blocked_by(gate: &Gate) -> Markup {
    html! { @if let Some(step) = &gate.step { "step " bdi { (visible(step)) } } @else { "the run itself" } }
}

/// The part of a step's page that shows what an attempt of it found, or else the newest one.
pub(super) fn evidence_href(base: Base, run: RunId, ordinal: i64, attempt: Option<i64>) -> String {
    let attempt = attempt.map(|attempt| format!("?attempt={attempt}")).unwrap_or_default();
    base.to(&format!("runs/{run}/steps/{ordinal}{attempt}#evidence"))
}

/// A link to what the gate relies on.
pub(super) fn evidence(base: Base, gate: &Gate) -> Markup {
    if let Some(AttemptAt { ordinal, attempt }) = gate.judged_at {
        return html! { div.note { a href=(evidence_href(base, gate.run_id, ordinal, Some(attempt))) { "Evidence" } } };
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
                    a href=(base.to(&format!("artifacts/{id}"))) { bdi { (visible(uri)) } }
                } @else { bdi { (visible(uri)) } }
            }
        }
    }
}
