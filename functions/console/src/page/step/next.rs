//! What happens next with a step, and why.

use maud::{Markup, html};
use shared::db::console::{Gate, Neighbour, StepDetail};
use shared::db::run::Control;
use shared::domain::StepStatus;
use shared::domain::gate::BUDGET;
use shared::view::next::{AskedNow, ParentNow, StepStanding, next_of_step};

use super::StepPage;
use crate::page::evidence::has_findings;
use crate::page::icon::look;
use crate::page::next::{self, Next};
use crate::page::parts::{elapsed, left, many};
use crate::page::run::{Controlled, control, is_possible};
use crate::page::sentence::sentence;
use crate::page::source::visible;

/// Characters of a reason in a sentence. The rest of it is further down.
const LEAD: usize = 300;

pub(super) fn next(page: &StepPage<'_>) -> Markup {
    next::next(&said(page))
}

fn said(page: &StepPage<'_>) -> Next {
    let step = page.step;
    let standing = standing(step);
    let said = next_of_step(&standing);
    let passed = passed(page);
    // A person reads the question first.
    let asked = asked(step).filter(|_| step.status == StepStatus::Blocked).and_then(|gate| gate.reason.as_deref());
    let error = said.error.or(asked).map(lead).filter(|error| !error.is_empty());
    let lead = html! {
        @if let Some(reason) = passed { "Passed: " bdi { (reason) } }
        @else {
            (sentence(page.base, step.run_id, &said.lead))
            @if let Some(error) = error { ": " bdi { (error) } }
        }
    };
    Next { look: look(step.status), lead, more: more(page), action: both(action(page), retry(page)) }
}

fn standing(step: &StepDetail) -> StepStanding<'_> {
    let open = step.parents.iter().filter(|parent| parent.status != StepStatus::Succeeded);
    let done = step.parents.iter().filter(|parent| parent.status == StepStatus::Succeeded).count();
    let newest = step.attempts.iter().find(|attempt| attempt.number == step.attempt);
    let gates = step.gates.iter().filter(|gate| gate.is_pending());
    StepStanding {
        status: step.status,
        run_status: step.run_status,
        attempt: step.attempt,
        attempt_at: newest.map(|attempt| &attempt.started_at),
        lease_until: step.lease_until.as_ref(),
        ready_at: step.ready_at.as_ref(),
        next_try_at: step.next_try_at.as_ref(),
        error: step.error.as_ref().map(|error| error.message.as_str()),
        parents: open
            .map(|one| ParentNow { name: &one.name, ordinal: Some(one.ordinal), status: one.status })
            .collect(),
        // Those that have not succeeded are read first.
        parents_total: step.parents_total.saturating_sub(done) as u64,
        gates: gates.map(|gate| AskedNow { id: gate.id, gate_type: &gate.gate_type, is_over: gate.is_over }).collect(),
        culprit: step.culprit.as_ref().map(|failed| (failed.name.as_str(), Some(failed.ordinal))),
    }
}

/// The gate that people can decide.
fn asked(step: &StepDetail) -> Option<&Gate> {
    step.gates.iter().find(|gate| gate.is_open())
}

/// Why a gate passed.
fn passed(page: &StepPage<'_>) -> Option<String> {
    let evidence = page.evidence.and_then(Result::ok).filter(|_| page.is_of_newest_attempt());
    let evidence = evidence.filter(|_| page.step.status == StepStatus::Succeeded);
    evidence.map(|evidence| lead(&evidence.reason.message)).filter(|reason| !reason.is_empty())
}

/// What explains the sentence.
fn more(page: &StepPage<'_>) -> Option<Markup> {
    let step = page.step;
    match step.status {
        StepStatus::Pending => asked(step).and_then(reason),
        StepStatus::Ready | StepStatus::Running => lost(page),
        StepStatus::Blocked => asked(step).map(|gate| {
            html! {
                @if gate.gate_type == BUDGET { (reason(gate).unwrap_or_default()) " " }
                "It has waited " (elapsed(&gate.created_at)) "."
                @if let Some(at) = &gate.expires_at { " It expires " (left(at)) "." }
            }
        }),
        StepStatus::Failed => {
            let code = step.error.as_ref().and_then(|error| error.code.as_deref());
            Some(html! {
                @if let Some(code) = code { code { (visible(code)) } ". " }
                (lost(page).unwrap_or_default())
            })
        }
        StepStatus::Skipped => Some(html! { "A retry of the run lets it start, if what failed succeeds." }),
        StepStatus::Succeeded | StepStatus::Cancelled => None,
    }
}

/// What a reader can do first.
fn action(page: &StepPage<'_>) -> Option<Markup> {
    let step = page.step;
    match step.status {
        StepStatus::Pending => match asked(step) {
            Some(gate) => Some(decide(page, gate, "Review and decide")),
            None => {
                step.parents.iter().find(|one| one.status != StepStatus::Succeeded).map(|parent| go(page, parent, ""))
            }
        },
        StepStatus::Blocked => asked(step)
            .map(|gate| decide(page, gate, if gate.gate_type == BUDGET { "Look at the gate" } else { "Decide" })),
        StepStatus::Failed => {
            let finding = page.evidence.and_then(Result::ok).filter(|evidence| has_findings(evidence));
            finding.map(|_| html! { a.button href="#found" data-go="problem" { "First finding" } })
        }
        StepStatus::Skipped => step.culprit.as_ref().map(|failed| go(page, failed, "problem")),
        _ => None,
    }
}

/// The form that retries the run, if the step did not succeed. Not beside an earlier attempt, which says nothing about the
/// run.
fn retry(page: &StepPage<'_>) -> Option<Markup> {
    let StepPage { base, step, token, .. } = *page;
    let is_open_to_retry = matches!(step.status, StepStatus::Failed | StepStatus::Skipped | StepStatus::Cancelled);
    let is_offered = is_open_to_retry && page.is_of_newest_attempt() && is_possible(Control::Retry, step.run_status);
    let run = Controlled { base, id: step.run_id, status: step.run_status, token, refused: None };
    is_offered.then(|| control(run, Control::Retry))
}

fn both(first: Option<Markup>, second: Option<Markup>) -> Option<Markup> {
    let is_any = first.is_some() || second.is_some();
    is_any.then(|| html! { (first.unwrap_or_default()) (second.unwrap_or_default()) })
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

fn decide(page: &StepPage<'_>, gate: &Gate, words: &str) -> Markup {
    html! { a.button.primary href=(page.base.to(&format!("gates/{}", gate.id))) data-go="primary" { (words) } }
}

/// A link to another step. `key` is what the keyboard calls it.
fn go(page: &StepPage<'_>, step: &Neighbour, key: &str) -> Markup {
    let key = (!key.is_empty()).then_some(key);
    html! { a.button href=(page.step_href(step.ordinal)) data-go=[key] { "Go to " bdi { (visible(&step.name)) } } }
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
