//! What happens next in a run, and what a reader can do about it.

use maud::{Markup, html};
use shared::db::console::{Gate, Run, Step};
use shared::db::run::Control;
use shared::view::next::{Action, GateNow, Next, Standing, StepNow, is_result, next as said};

use super::RunPage;
use super::control::control;
use crate::page::icon::Look;
use crate::page::next::{self, Next as Band};
use crate::page::sentence::sentence;
use crate::page::source::visible;

pub(super) fn next(page: &RunPage<'_>) -> Markup {
    let (base, run) = (page.base, page.run);
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
        action: actions(page, &next),
    })
}

/// Actions that the band offers.
const OFFERED: usize = 2;

/// What a reader can do, the first thing first.
fn actions(page: &RunPage<'_>, next: &Next<'_>) -> Option<Markup> {
    let link = |words: &str, path: &str, style: &str, go: &str| {
        html! { a class={ "button " (style) } href=(page.base.to(path)) data-go=(go) { (words) } }
    };
    let offer = |action: &Action<'_>| match action {
        Action::Decide(id) => link("Review and decide", &format!("gates/{id}"), "primary", "primary"),
        Action::Look { ordinal, .. } => {
            link("See what failed", &format!("runs/{}/steps/{ordinal}", page.run.id), "", "problem")
        }
        Action::Open { id, .. } => link("Open the result", &format!("artifacts/{id}"), "", "primary"),
        Action::Resume => control(page.controlled(), Control::Resume),
        Action::Retry => control(page.controlled(), Control::Retry),
    };
    let offered = html! { @for action in next.actions.iter().take(OFFERED) { (offer(action)) } };
    (!next.actions.is_empty()).then_some(offered)
}

fn standing(run: &Run) -> Standing<'_> {
    let result = run.artifacts.iter().find(|artifact| is_result(&artifact.kind));
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
        gates_total: run.gates_total as u64,
        gates_open: run.gates_open,
        artifacts_total: run.artifacts_total as u64,
        artifact: result.map(|artifact| (artifact.name.as_str(), artifact.id)),
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
        is_over: gate.is_over,
        on_pass: gate.on_pass,
        actor: gate.actor.as_deref(),
        created_at: &gate.created_at,
        expires_at: gate.expires_at.as_ref(),
    }
}
