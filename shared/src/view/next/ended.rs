//! Runs that have ended.

use super::standing::join;
use super::{Action, Next, Standing};
use crate::domain::gate::Decision;
use crate::domain::{GateStatus, StepStatus};
use crate::view::sentence::words::{many, thousands, without_name};
use crate::view::sentence::{Part, Symbol, Tone, text};

pub(super) fn succeeded<'a>(run: &Standing<'a>) -> Next<'a> {
    let mut lead = vec![text("Succeeded")];
    lead.extend(gates(run));
    let mut next = Next::new(Symbol::Good, Tone::Good, lead);
    let took = run.took_ms.map(|ms| [text(" in "), Part::Duration(ms)]).into_iter().flatten();
    let steps = match run.steps_total {
        1 => "The step succeeded".to_owned(),
        total => format!("All {} succeeded", many(total, "step")),
    };
    next.more.push([text(steps)].into_iter().chain(took).collect());
    if run.artifacts_total > 0 {
        next.more.push(vec![text(format!("The run stored {}", many(run.artifacts_total, "artifact")))]);
    }
    next.actions.extend(run.artifact.map(|(name, id)| Action::Open { name, id }));
    next
}

/// `: 4 gates passed on evidence, 1 by ben's approval`. Nothing if there are too many to know.
fn gates<'a>(run: &Standing<'a>) -> Vec<Part<'a>> {
    if !run.knows_gates() {
        return Vec::new();
    }
    let passed = |gate: &&super::GateNow<'_>| gate.status == GateStatus::Passed;
    let on_evidence = run.gates.iter().filter(passed).filter(|gate| gate.actor.is_none()).count() as u64;
    let (mut approved, mut waived) = (Vec::<&'a str>::new(), Vec::<&'a str>::new());
    for gate in &run.gates {
        match (gate.status, gate.actor) {
            (GateStatus::Passed, Some(actor)) => approved.push(actor),
            (GateStatus::Waived, actor) => waived.push(actor.unwrap_or("somebody")),
            _ => {}
        }
    }
    let mut said: Vec<Vec<Part<'a>>> = Vec::new();
    if on_evidence > 0 {
        said.push(vec![text(format!("{} passed on evidence", many(on_evidence, "gate")))]);
    }
    for (actors, decision) in [(approved, Decision::Approve), (waived, Decision::Waive)] {
        let (count, verb, mut people) = (actors.len(), decision.participle(), actors);
        people.dedup();
        match (people.as_slice(), count as u64) {
            ([], _) => {}
            ([actor], count) => {
                said.push(vec![text(format!("{} {verb} by ", thousands(count))), Part::Actor(actor)]);
            }
            (_, count) => said.push(vec![text(format!("{} {verb} by several people", thousands(count)))]),
        }
    }
    let mark = |at: usize| text(if at == 0 { ": " } else { ", " });
    said.into_iter().enumerate().flat_map(|(at, words)| [vec![mark(at)], words].concat()).collect()
}

pub(super) fn failed<'a>(run: &Standing<'a>) -> Next<'a> {
    let failed = run.in_state(StepStatus::Failed);
    let mut next = match failed.as_slice() {
        [step, ..] => {
            let lead = vec![text("Failed at "), step.part()];
            let look = Action::Look { step: step.name, ordinal: step.ordinal };
            Next {
                error: step.error.map(|error| without_name(error, step.name)).or(run.failure),
                actions: vec![look],
                ..Next::new(Symbol::Bad, Tone::Bad, lead)
            }
        }
        [] => Next { error: run.failure, ..Next::new(Symbol::Bad, Tone::Bad, vec![text("Failed")]) },
    };
    if let [_, others @ ..] = failed.as_slice()
        && !others.is_empty()
    {
        let verb = if others.len() == 1 { " failed too" } else { " failed as well" };
        next.more.push(join([super::standing::names(others), vec![text(verb)]]));
    }
    let skipped = run.in_state(StepStatus::Skipped);
    if !skipped.is_empty() {
        let verb = if skipped.len() == 1 { " was skipped" } else { " were skipped" };
        next.more.push(join([super::standing::names(&skipped), vec![text(verb)]]));
    }
    if failed.iter().any(|step| step.tool.starts_with("gate:")) {
        next.more.push(vec![text("A retry judges the same workspace again: if the code is wrong, change it first")]);
    }
    add_retry(&mut next, run);
    next
}

pub(super) fn cancelled<'a>(run: &Standing<'a>) -> Next<'a> {
    let lead = match run.stopped {
        Some((Some(actor), at)) => vec![text("Cancelled by "), Part::Actor(actor), text(", "), Part::At(at)],
        Some((None, at)) => vec![text("Cancelled, "), Part::At(at)],
        None => vec![text("Cancelled")],
    };
    let mut next = Next { error: run.failure, ..Next::new(Symbol::Cancelled, Tone::Quiet, lead) };
    add_retry(&mut next, run);
    if run.steps.iter().any(|step| step.status == StepStatus::Cancelled && step.attempt > 0) {
        next.more.push(vec![text("Results of attempts that still run are discarded")]);
    }
    next
}

/// What a retry keeps.
fn add_retry<'a>(next: &mut Next<'a>, run: &Standing<'a>) {
    next.actions.push(Action::Retry);
    if !run.knows_all() {
        return;
    }
    let (kept, total) = (run.count(StepStatus::Succeeded), run.steps_total);
    let rest = match total - kept {
        1 => "the other step".to_owned(),
        rest => format!("the other {} steps", thousands(rest)),
    };
    let words = match kept {
        0 => "No step had succeeded; a retry runs all of them again".to_owned(),
        1 => format!("1 step had succeeded; a retry keeps it and runs {rest} again"),
        _ => format!("{} had succeeded; a retry keeps them and runs {rest} again", many(kept, "step")),
    };
    next.more.push(vec![text(words)]);
}
