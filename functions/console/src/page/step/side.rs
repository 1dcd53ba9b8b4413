//! Attempts of a step, its decisions, its place in the plan, its limits.

use maud::{Markup, html};
use shared::db::console::{AttemptStatus, Gate, Neighbour, TriedAttempt};

use super::StepPage;
use crate::page::format;
use crate::page::gates::look_of;
use crate::page::icon::{Look, look, mark, state};
use crate::page::parts::{elapsed, left, many, pairs, person, section, time};
use crate::page::source::visible;

pub(super) fn side(page: &StepPage<'_>) -> Markup {
    html! {
        (attempts(page))
        (decisions(page))
        (order(page))
        (limits(page))
    }
}

fn attempts(page: &StepPage<'_>) -> Markup {
    let step = page.step;
    let body = html! {
        @if step.attempts.is_empty() { p.note { "None: it has not started." } }
        @else { ol.proofs.slim { @for attempt in &step.attempts { (attempt_item(page, attempt)) } } }
        @if let Some(last) = step.attempts.last().filter(|last| last.number > 1) {
            p.note { "Attempts before attempt " (last.number) " are not listed." }
        }
    };
    let count = u64::try_from(step.max_attempts).unwrap_or(0);
    section("attempts", "Attempts", &html! { p.note { "at most " (many(count, "failure", "failures")) } }, &body)
}

fn attempt_item(page: &StepPage<'_>, attempt: &TriedAttempt) -> Markup {
    let is_shown = attempt.number == page.step.shown;
    let href = format!("{}?attempt={}", page.step_href(page.step.ordinal), attempt.number);
    let (look, word) = state_of(attempt.status);
    html! {
        li {
            (mark(look))
            span {
                @if is_shown { b aria-current="true" { "attempt " (attempt.number) } }
                @else { a href=(href) { "attempt " (attempt.number) } }
                " " span.note { (word) }
            }
            span.note { @if let Some(error) = &attempt.error { bdi { (visible(error)) } } }
            span.number {
                @match attempt.duration_ms { Some(ms) => (format::duration(ms)), None => (elapsed(&attempt.started_at)) }
            }
        }
    }
}

/// What became of an attempt.
pub(super) fn outcome(attempt: &TriedAttempt) -> Markup {
    let (look, word) = state_of(attempt.status);
    state(Look { word, ..look })
}

fn state_of(status: AttemptStatus) -> (Look, &'static str) {
    match status {
        AttemptStatus::Running => (look("running"), "running"),
        AttemptStatus::Succeeded => (look("succeeded"), "succeeded"),
        AttemptStatus::Failed => (look("failed"), "failed"),
        AttemptStatus::Blocked => (look("blocked"), "asked for a decision"),
        AttemptStatus::Lost => (look("lost"), "lost its worker"),
        AttemptStatus::Cancelled => (look("cancelled"), "cancelled"),
    }
}

fn decisions(page: &StepPage<'_>) -> Markup {
    let step = page.step;
    if step.gates.is_empty() {
        return html! {};
    }
    let body = html! {
        ul.proofs.slim { @for gate in &step.gates { (gate_item(page, gate)) } }
        @if step.gates_total > step.gates.len() { p.note { (step.gates.len()) " of " (step.gates_total) " gates are shown." } }
    };
    section("gates", "Gates", &html! {}, &body)
}

fn gate_item(page: &StepPage<'_>, gate: &Gate) -> Markup {
    let look = look_of(gate);
    html! {
        li {
            (mark(look))
            span {
                a href=(page.base.to(&format!("gates/{}", gate.id))) { bdi { (visible(&gate.gate_type)) } }
                " " span.note { (look.word) @if let Some(actor) = &gate.actor { " by " (person(actor)) } }
            }
            span.note { @if let Some(reason) = &gate.decision_reason { bdi { (visible(reason)) } } }
            span.number { @if let Some(at) = &gate.decided_at { span.note { (time(at)) } } }
        }
    }
}

fn order(page: &StepPage<'_>) -> Markup {
    let step = page.step;
    let parents = neighbours(page, &step.parents, step.parents_total, "nothing");
    let children = neighbours(page, &step.children, step.children_total, "nothing follows");
    section("order", "Order", &html! {}, &pairs([("Waits for", parents), ("Then", children)]))
}

fn neighbours(page: &StepPage<'_>, steps: &[Neighbour], total: usize, none: &str) -> Markup {
    html! {
        @if steps.is_empty() { (none) }
        @for (index, step) in steps.iter().enumerate() {
            @if index > 0 { br; }
            (mark(look(step.status))) " "
            a href=(page.step_href(step.ordinal)) { bdi { (visible(&step.name)) } }
        }
        @if total > steps.len() { br; span.note { "and " (many((total - steps.len()) as u64, "more step", "more steps")) } }
    }
}

fn limits(page: &StepPage<'_>) -> Markup {
    let step = page.step;
    let mut list = vec![("Handler", html! { code { (visible(&step.handler)) } })];
    if let Some(seconds) = step.timeout_s {
        list.push(("Time limit", html! { (format::duration(seconds.saturating_mul(1_000))) " an attempt" }));
    }
    if let Some(at) = &step.lease_until {
        list.push(("Lease", html! { "ends " (left(at)) ". A worker that is lost until then is replaced." }));
    }
    if step.workers_lost > 0 {
        list.push(("Lost workers", html! { (step.workers_lost) }));
    }
    for (name, at) in [("Ready", &step.ready_at), ("Started", &step.started_at), ("Ended", &step.finished_at)] {
        // These are of the step. An earlier attempt has its own.
        if let Some(at) = at.as_ref().filter(|_| page.is_of_newest_attempt()) {
            list.push((name, time(at)));
        }
    }
    section("limits", "Limits and times", &html! {}, &pairs(list))
}
