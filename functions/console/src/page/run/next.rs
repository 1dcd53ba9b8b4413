//! What happens next in a run, and what a reader can do about it.

use maud::{Markup, html};
use shared::db::console::{Gate, Run, Step};
use shared::view::next::{Action, GateNow, Next, Standing, StepNow, next as said};

use crate::page::icon::Look;
use crate::page::layout::Base;
use crate::page::next::{self, Next as Band};
use crate::page::sentence::sentence;
use crate::page::source::visible;

pub(super) fn next(base: Base, run: &Run) -> Markup {
    let standing = standing(run);
    let next = said(&standing);
    let more = html! {
        @for (at, reason) in next.more.iter().enumerate() {
            @if at > 0 { " " }
            (sentence(base, run.id, reason)) "."
        }
    };
    next::next(&Band {
        look: Look { symbol: next.symbol.as_str(), tone: next.tone.as_str(), word: "" },
        lead: html! {
            (sentence(base, run.id, &next.lead))
            @if let Some(error) = next.error { ": " bdi { (visible(error)) } }
        },
        more: (!next.more.is_empty()).then_some(more),
        action: action(base, run, &next),
    })
}

/// The first thing that a reader can do. What changes the run itself has its form in the head of the page.
fn action(base: Base, run: &Run, next: &Next<'_>) -> Option<Markup> {
    let (words, path, go) = next.actions.iter().find_map(|action| match action {
        Action::Decide(id) => Some(("Review and decide", format!("gates/{id}"), "primary")),
        Action::Look { ordinal, .. } => {
            Some(("See what failed", format!("runs/{}/steps/{ordinal}", run.id), "primary problem"))
        }
        Action::Open { id, .. } => Some(("Open the result", format!("artifacts/{id}"), "primary")),
        Action::Resume | Action::Retry => None,
    })?;
    Some(html! { a.button.primary href=(base.to(&path)) data-go=(go) { (words) } })
}

fn standing(run: &Run) -> Standing<'_> {
    Standing {
        status: run.status,
        failure: run.failure.as_deref(),
        stopped: run.stopped.as_ref().map(|stopped| (stopped.actor.as_deref(), &stopped.at)),
        deadline_at: run.deadline_at.as_ref(),
        ready_since: run.ready_since.as_ref(),
        took_ms: run.duration_ms,
        steps: run.steps.iter().map(step).collect(),
        steps_total: run.steps_total as u64,
        edges: &run.edges,
        gates: run.gates.iter().map(gate).collect(),
        gates_total: Some(run.gates_total as u64),
        artifacts_total: run.artifacts_total as u64,
        artifact: None,
    }
}

fn step(step: &Step) -> StepNow<'_> {
    StepNow {
        ordinal: step.ordinal,
        name: &step.name,
        tool: &step.tool,
        status: step.status,
        attempt: step.attempt,
        failures: step.failures,
        workers_lost: step.workers_lost,
        open_since: step.open_since.as_ref(),
        next_try_at: step.next_try_at.as_ref(),
        error: step.error.as_deref(),
    }
}

fn gate(gate: &Gate) -> GateNow<'_> {
    GateNow {
        id: gate.id,
        gate_type: &gate.gate_type,
        step: gate.step.as_deref(),
        status: gate.status,
        actor: gate.actor.as_deref(),
        created_at: &gate.created_at,
        expires_at: gate.expires_at.as_ref(),
    }
}
