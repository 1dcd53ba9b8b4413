//! What happens next with a step, and why.

use maud::{Markup, html};
use shared::db::console::{Gate, Neighbour, TriedAttempt};
use shared::db::run::Control;
use shared::domain::{RunStatus, StepStatus};

use super::StepPage;
use crate::page::evidence::has_findings;
use crate::page::icon::look;
use crate::page::next::{self, Next};
use crate::page::parts::{elapsed, left, many};
use crate::page::run::{Controlled, control, is_possible};
use crate::page::source::visible;

/// Steps that a sentence names.
const NAMED: usize = 3;
/// Characters of a reason in a sentence. The rest of it is further down.
const LEAD: usize = 300;

pub(super) fn next(page: &StepPage<'_>) -> Markup {
    next::next(&said(page))
}

fn said(page: &StepPage<'_>) -> Next {
    let step = page.step;
    let look = look(step.status);
    let plain = |lead: Markup, more: Option<Markup>| Next { look, lead, more, action: None };
    match step.status {
        StepStatus::Pending => pending(page),
        StepStatus::Ready => ready(page),
        StepStatus::Running => plain(running(page), lost(page)),
        StepStatus::Blocked => asked(page),
        StepStatus::Succeeded => plain(succeeded(page), None),
        StepStatus::Failed => failed(page),
        StepStatus::Skipped => skipped(page),
        StepStatus::Cancelled => Next { action: retry(page), ..plain(html! { "Cancelled with its run" }, None) },
    }
}

fn pending(page: &StepPage<'_>) -> Next {
    let step = page.step;
    let open: Vec<&Neighbour> =
        step.parents.iter().filter(|parent| parent.status != StepStatus::Succeeded).take(NAMED).collect();
    let shown = step.parents.iter().filter(|parent| parent.status == StepStatus::Succeeded).count();
    let more = step.parents_total.saturating_sub(shown + open.len());
    let gate = step.gates.iter().find(|gate| gate.is_open());
    let lead = html! {
        @if open.is_empty() && gate.is_none() { "Waits for its run" }
        @else {
            "Waits for "
            @for (index, parent) in open.iter().enumerate() {
                @if index > 0 { ", " }
                b { bdi { (visible(&parent.name)) } }
                @if parent.status == StepStatus::Blocked { ", which waits for a person" }
            }
            @if more > 0 { " and " (many(more as u64, "more step", "more steps")) }
            @if gate.is_some() { @if !open.is_empty() { ", and for " } "a decision" }
        }
    };
    let action = match (gate, open.first()) {
        (Some(gate), _) => Some(decide(page, gate, "Review and decide")),
        (None, Some(parent)) => Some(go(page, parent)),
        (None, None) => None,
    };
    Next { look: look(step.status), lead, more: gate.and_then(reason), action }
}

fn ready(page: &StepPage<'_>) -> Next {
    let step = page.step;
    let error = step.error.as_ref().map(|error| lead(&error.message));
    let lead = html! {
        @if step.run_status == RunStatus::Paused { "Ready, but its run is paused" }
        @else if let Some(at) = &step.next_try_at { "Attempt " (step.attempt + 1) " follows " (left(at)) }
        @else {
            "Ready, and no worker has claimed it yet"
            @if let Some(at) = &step.ready_at { ": it has waited " (elapsed(at)) }
        }
    };
    let more = html! {
        @if let Some(error) = error { "The last attempt failed: " bdi { (error) } }
        @else { (lost(page).unwrap_or_default()) }
    };
    Next { look: look(step.status), lead, more: Some(more), action: None }
}

fn running(page: &StepPage<'_>) -> Markup {
    let step = page.step;
    let newest: Option<&TriedAttempt> = step.attempts.iter().find(|attempt| attempt.number == step.attempt);
    html! {
        "Attempt " (step.attempt)
        @if let Some(attempt) = newest { " has run " (elapsed(&attempt.started_at)) } @else { " runs" }
        @if let Some(at) = &step.lease_until { "; its lease ends " (left(at)) }
    }
}

/// Failures and lost workers of this generation.
fn lost(page: &StepPage<'_>) -> Option<Markup> {
    let step = page.step;
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let failed =
        (step.failures > 0).then(|| format!("{} of at most {} attempts failed. ", step.failures, step.max_attempts));
    let lost = (step.workers_lost > 0).then(|| {
        let words = many(count(step.workers_lost), "worker was lost", "workers were lost");
        format!("{words}, which does not count as a failure.")
    });
    (failed.is_some() || lost.is_some()).then(|| html! { (failed.unwrap_or_default()) (lost.unwrap_or_default()) })
}

fn asked(page: &StepPage<'_>) -> Next {
    let step = page.step;
    let gate = step.gates.iter().find(|gate| gate.is_open());
    let is_late = gate.is_none() && step.gates.iter().any(Gate::is_pending);
    let lead = html! {
        @if is_late { "The time for a decision is over: the next sweep ends the gate, and the step fails" }
        @else { "Waits for a person" }
        @if let Some(reason) = gate.and_then(reason) { ": " (reason) }
    };
    let more = gate.map(|gate| {
        html! {
            "Asked as " code { bdi { (visible(&gate.gate_type)) } } ", and has waited " (elapsed(&gate.created_at)) "."
            @if let Some(at) = &gate.expires_at { " It expires " (left(at)) "." }
        }
    });
    Next { look: look(step.status), lead, more, action: gate.map(|gate| decide(page, gate, "Decide")) }
}

fn succeeded(page: &StepPage<'_>) -> Markup {
    let evidence = page.evidence.and_then(Result::ok).filter(|_| page.is_of_newest_attempt());
    let reason = evidence.map(|evidence| lead(&evidence.reason.message)).filter(|reason| !reason.is_empty());
    html! {
        @match reason {
            Some(reason) => { "Passed: " bdi { (reason) } },
            None => "Succeeded",
        }
    }
}

fn failed(page: &StepPage<'_>) -> Next {
    let step = page.step;
    let message = step.error.as_ref().map(|error| lead(&error.message)).filter(|message| !message.is_empty());
    let code = step.error.as_ref().and_then(|error| error.code.as_deref());
    let more = html! {
        @if let Some(code) = code { code { (visible(code)) } ". " }
        (lost(page).unwrap_or_default())
    };
    let finding = page.evidence.and_then(Result::ok).filter(|evidence| has_findings(evidence));
    let finding = finding.map(|_| html! { a.button href="#found" data-go="problem" { "First finding" } });
    let action = both(finding, retry(page));
    let lead = html! { bdi { (message.unwrap_or_else(|| "It failed without an error message".into())) } };
    Next { look: look(step.status), lead, more: Some(more), action }
}

fn skipped(page: &StepPage<'_>) -> Next {
    let step = page.step;
    let culprit = step.culprit.as_ref();
    let lead = html! {
        @match culprit {
            Some(failed) => { "Skipped, because " b { bdi { (visible(&failed.name)) } } " failed before it could start" },
            None => "Skipped, because its run failed before it could start",
        }
    };
    let more = html! { "A retry of the run lets it start, if what failed succeeds." };
    let go = culprit.map(|failed| {
        html! { a.button href=(page.step_href(failed.ordinal)) data-go="problem" { "Go to " bdi { (visible(&failed.name)) } } }
    });
    Next { look: look(step.status), lead, more: Some(more), action: both(go, retry(page)) }
}

/// The form that retries the run. Not beside an earlier attempt, which says nothing about the run.
fn retry(page: &StepPage<'_>) -> Option<Markup> {
    let StepPage { base, step, token, .. } = *page;
    let run = Controlled { base, id: step.run_id, status: step.run_status, token, refused: None };
    let is_offered = page.is_of_newest_attempt() && is_possible(Control::Retry, step.run_status);
    is_offered.then(|| control(run, Control::Retry))
}

fn both(first: Option<Markup>, second: Option<Markup>) -> Option<Markup> {
    let is_any = first.is_some() || second.is_some();
    is_any.then(|| html! { (first.unwrap_or_default()) (second.unwrap_or_default()) })
}

fn decide(page: &StepPage<'_>, gate: &Gate, words: &str) -> Markup {
    html! { a.button.primary href=(page.base.to(&format!("gates/{}", gate.id))) data-go="primary" { (words) } }
}

fn go(page: &StepPage<'_>, step: &Neighbour) -> Markup {
    html! { a.button href=(page.step_href(step.ordinal)) { "Go to " bdi { (visible(&step.name)) } } }
}

fn reason(gate: &Gate) -> Option<Markup> {
    let reason = gate.reason.as_deref().map(lead).filter(|reason| !reason.is_empty())?;
    Some(html! { bdi { (reason) } })
}

/// The first line of a text.
fn lead(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    visible(&shared::domain::bounds::shortened(line, LEAD))
}
