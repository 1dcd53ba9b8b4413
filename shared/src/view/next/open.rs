//! Runs that have not ended.

use super::standing::{GateNow, StepNow, join, names};
use super::{Action, Next, Standing};
use crate::domain::StepStatus;
use crate::domain::gate::{APPROVAL, BUDGET, GATE_CHANGE};
use crate::domain::tool::{Effect, effect_of};
use crate::view::OnPass;
use crate::view::sentence::words::{many, thousands};
use crate::view::sentence::{Part, Symbol, Tone, text};

/// More steps than that run at once in a large run: their names say nothing.
const FEW: usize = 3;

/// Queued or running: a step is running, ready, or waits for its next attempt.
pub(super) fn running<'a>(run: &Standing<'a>) -> Next<'a> {
    let (running, ready) = (run.in_state(StepStatus::Running), run.in_state(StepStatus::Ready));
    let (later, due): (Vec<_>, Vec<_>) = ready.into_iter().partition(|step| step.next_try_at.is_some());
    let failed = run.in_state(StepStatus::Failed);
    let mut next = if !failed.is_empty() && !running.is_empty() {
        let lead = join([vec![text("Fails: ")], names(&failed), vec![text(" failed, and "), still(&running)]]);
        Next { error: None, ..Next::new(Symbol::Bad, Tone::Bad, lead) }
    } else if !running.is_empty() {
        Next::new(Symbol::Arrow, Tone::Busy, runs(run, &running))
    } else if let ([], [step, ..]) = (due.as_slice(), later.as_slice()) {
        return retries(run, step, later.len());
    } else {
        waits_for_worker(run, &due)
    };
    add_failure(&mut next, &failed);
    next.more.extend(run.progress());
    if let [step] = running.as_slice() {
        let follows = run.next_after(step.name);
        if !follows.is_empty() && failed.is_empty() {
            let verb = if follows.len() == 1 { " follows" } else { " follow" };
            next.more.push(join([names(&follows), vec![text(verb)]]));
        }
    }
    if !running.is_empty() && !due.is_empty() && failed.is_empty() {
        next.more.push(ready_words(run, &due));
    }
    add_setbacks(&mut next, &running, &later);
    add_gates(&mut next, run);
    add_deadline(&mut next, run);
    next
}

/// `unit still runs`.
fn still<'a>(running: &[&StepNow<'a>]) -> Part<'a> {
    text(match running {
        [step] => format!("{} still runs", step.name),
        _ => format!("{} still run", many(running.len() as u64, "step")),
    })
}

fn runs<'a>(run: &Standing<'a>, running: &[&StepNow<'a>]) -> Vec<Part<'a>> {
    if let [step] = running {
        let attempt = (step.attempt > 1).then(|| text(format!(", attempt {}", step.attempt)));
        let since = step.open_since.map(|since| [text(" ("), Part::Since(since), text(")")]);
        let start = [text("Running "), step.part()];
        return start.into_iter().chain(attempt).chain(since.into_iter().flatten()).collect();
    }
    let mut lead = join([vec![text("Running ")], names(running)]);
    let rest = run.steps_total.saturating_sub(run.count(StepStatus::Succeeded));
    if running.len() <= FEW && run.knows_all() && rest == running.len() as u64 {
        lead.push(text(format!(", the last {rest} of {}", many(run.steps_total, "step"))));
    }
    lead
}

/// Every step that could start failed before and waits for its next attempt.
fn retries<'a>(run: &Standing<'a>, step: &StepNow<'a>, count: usize) -> Next<'a> {
    let mut lead = vec![text("Tries "), step.part(), text(" again")];
    lead.extend(step.next_try_at.map(|at| [text(" "), Part::Until(at)]).into_iter().flatten());
    let mut next = Next { error: step.error, ..Next::new(Symbol::Again, Tone::Warn, lead) };
    let times = many(u64::try_from(step.failures.max(1)).unwrap_or(1), "attempt");
    next.more.push(vec![text(format!("{times} of this generation failed"))]);
    if count > 1 {
        next.more.push(vec![text(format!("{} more wait for their next attempt", count - 1))]);
    }
    next.more.extend(run.progress());
    next.actions.push(Action::Look { step: step.name, ordinal: step.ordinal });
    add_gates(&mut next, run);
    add_deadline(&mut next, run);
    next
}

fn waits_for_worker<'a>(run: &Standing<'a>, due: &[&StepNow<'a>]) -> Next<'a> {
    let lead = match due {
        [] => vec![text("The next step starts soon")],
        [step] => join([vec![step.part(), text(" is ready and waits for a worker")], since(run)]),
        _ => join([names(due), vec![text(" are ready and wait for a worker")], since(run)]),
    };
    let mut next = Next::new(Symbol::Ready, Tone::Busy, lead);
    if !due.is_empty() {
        next.more.push(vec![text("A wake-up was sent; if it is lost, the sweeper sends another one")]);
    }
    next
}

fn since<'a>(run: &Standing<'a>) -> Vec<Part<'a>> {
    run.ready_since.map(|since| vec![text(" ("), Part::Since(since), text(")")]).unwrap_or_default()
}

/// `92 are ready and wait for a worker, the oldest 41 s`.
fn ready_words<'a>(run: &Standing<'a>, due: &[&StepNow<'a>]) -> Vec<Part<'a>> {
    if let [step] = due {
        return join([vec![step.part(), text(" is ready and waits for a worker")], since(run)]);
    }
    let mut words = vec![text(format!("{} are ready and wait for a worker", thousands(due.len() as u64)))];
    words.extend(run.ready_since.map(|since| [text(", the oldest "), Part::Since(since)]).into_iter().flatten());
    words
}

/// A step that failed decides how the run ends.
fn add_failure<'a>(next: &mut Next<'a>, failed: &[&StepNow<'a>]) {
    let [step, ..] = failed else { return };
    next.tone = Tone::Bad;
    if let Some(error) = step.error {
        let line = error.lines().next().unwrap_or_default().trim_end_matches('.');
        next.more.push(vec![step.part(), text(format!(": {line}"))]);
    }
    next.more.push(vec![text("Nothing else starts. The run ends as failed when the last step has finished")]);
    next.actions.push(Action::Look { step: step.name, ordinal: step.ordinal });
}

/// Lost workers and failed attempts of steps that go on.
fn add_setbacks<'a>(next: &mut Next<'a>, running: &[&StepNow<'a>], later: &[&StepNow<'a>]) {
    if let [step] = running {
        match step.workers_lost {
            ..=0 => {}
            1 => next.more.push(vec![text("A worker was lost before; that does not count as a failure")]),
            lost => {
                next.more
                    .push(vec![text(format!("{lost} workers were lost before; that does not count as a failure"))]);
            }
        }
        if let Some(error) = step.error.filter(|_| step.failures > 0) {
            let line = error.lines().next().unwrap_or_default().trim_end_matches('.');
            next.more.push(vec![text(format!("The attempt before failed: {line}"))]);
        }
    }
    if !later.is_empty() {
        let verb = if later.len() == 1 { " waits for its next attempt" } else { " wait for their next attempts" };
        next.more.push(join([names(later), vec![text(verb)]]));
    }
}

/// Decisions that are due while other steps run.
fn add_gates<'a>(next: &mut Next<'a>, run: &Standing<'a>) {
    let words = match (run.open_gates().as_slice(), run.gates_open) {
        ([], _) => return,
        ([gate], 1) if gate.gate_type == BUDGET => vec![gate.part(), text(" waits for money")],
        ([gate], 1) => vec![gate.part(), text(" waits for a decision")],
        (gates, _) if run.knows_gates() && gates.iter().all(|gate| gate.gate_type == BUDGET) => {
            vec![text(format!("{} wait for money", many(gates.len() as u64, "step")))]
        }
        (_, open) => vec![text(format!("{} wait for a decision", many(open, "gate")))],
    };
    next.more.push(words);
    next.actions.extend(run.open_gates().first().map(|gate| Action::Decide(gate.id)));
}

fn add_deadline<'a>(next: &mut Next<'a>, run: &Standing<'a>) {
    next.more.extend(run.deadline_at.map(|at| vec![text("The run times out "), Part::Until(at)]));
}

/// Nothing goes on before a person decides.
pub(super) fn blocked<'a>(run: &Standing<'a>) -> Next<'a> {
    let (open, total) = (run.open_gates(), run.gates_open);
    let Some(&first) = open.first() else { return too_late(run) };
    let is_one = total <= 1;
    let is_one_change = open.len() as u64 == total && open.iter().all(|gate| gate.gate_type == GATE_CHANGE);
    let is_money = open.len() as u64 == total && open.iter().all(|gate| gate.gate_type == BUDGET);
    let mut lead = vec![text("Has waited "), Part::Since(first.created_at), text(" for ")];
    match (is_one_change, first.step) {
        (_, Some(step)) if is_money && is_one => lead.extend([text("money for "), of_step(run, step)]),
        _ if is_money => lead.push(text(format!("money for {}", many(total, "step")))),
        (true, _) => lead.push(text("a decision about a change of its own checks")),
        (false, Some(step)) if is_one => lead.extend([text("a decision about "), of_step(run, step)]),
        (false, None) if is_one => lead.extend([text("a decision about "), first.part()]),
        (false, _) => lead.push(text(format!("{} decisions", thousands(total)))),
    }
    let mut next = Next::new(Symbol::Decide, Tone::Warn, lead);
    if is_one_change && !is_one {
        next.more.push(vec![text("One decision answers all gates that ask about the same change")]);
    }
    next.more.extend(run.progress());
    if is_money {
        // Each gate says what helps. Some pass by themselves.
        add_deadline(&mut next, run);
        next.actions.push(Action::Decide(first.id));
        return next;
    }
    if is_one {
        add_consequence(&mut next, run, first);
    }
    let (expires, never) = if is_one {
        ("The gate expires ", "The gate has no expiry")
    } else {
        ("The oldest expires ", "The oldest has no expiry")
    };
    next.more.push(first.expires_at.map_or(vec![text(never)], |at| vec![text(expires), Part::Until(at)]));
    add_deadline(&mut next, run);
    next.actions.push(Action::Decide(first.id));
    next
}

/// Nobody can decide: what was pending has expired, or was decided a moment ago.
fn too_late<'a>(run: &Standing<'a>) -> Next<'a> {
    let late = run.late_gates();
    let lead = match (late.as_slice(), late.first().and_then(|gate| gate.step)) {
        ([], _) => vec![text("Waits: no step can go on before a gate passes")],
        ([_], Some(step)) => vec![text("The time for a decision about "), of_step(run, step), text(" is over")],
        ([gate], None) => vec![text("The time for a decision about "), gate.part(), text(" is over")],
        _ => vec![text("The time for a decision is over")],
    };
    let mut next = Next::new(Symbol::Decide, Tone::Warn, lead);
    if !late.is_empty() {
        next.more.push(vec![text("Nobody decided. The next sweep ends the gate, and the run fails")]);
    }
    next.more.extend(run.progress());
    next
}

fn of_step<'a>(run: &Standing<'a>, name: &'a str) -> Part<'a> {
    let step = run.steps.iter().find(|step| step.name == name);
    step.map_or(Part::Step { name, ordinal: None }, StepNow::part)
}

/// What an approval starts.
fn add_consequence<'a>(next: &mut Next<'a>, run: &Standing<'a>, gate: &GateNow<'a>) {
    let Some(name) = gate.step else { return };
    let follows = match gate.on_pass {
        OnPass::Finish => run.next_after(name),
        OnPass::Resume => {
            let verb = if gate.gate_type.starts_with(APPROVAL) { " starts" } else { " runs again" };
            next.more.push(vec![text("After an approval "), of_step(run, name), text(verb)]);
            run.steps.iter().filter(|step| step.name == name).collect()
        }
        OnPass::Release => run.step_behind(gate).into_iter().collect(),
    };
    if !follows.is_empty() && gate.on_pass != OnPass::Resume {
        let writes = follows.iter().any(|step| effect_of(step.tool) == Effect::Write);
        let (one, many) = if writes {
            (" starts and writes to the database", " start, with a write to the database")
        } else {
            (" starts", " start")
        };
        let verb = if follows.len() == 1 { one } else { many };
        next.more.push(join([vec![text("After an approval ")], names(&follows), vec![text(verb)]]));
    }
    let is_said = |step: &StepNow<'_>| follows.iter().any(|said| said.ordinal == step.ordinal);
    let later: Vec<_> = run.reached_by(gate).into_iter().filter(|step| !is_said(step)).collect();
    next.more.extend(later_words(&later));
}

/// What else follows without another question, if it does anything beyond the run.
fn later_words<'a>(steps: &[&StepNow<'a>]) -> Option<Vec<Part<'a>>> {
    let kinds = [
        (Effect::Write, " writes to the database", " write to the database"),
        (Effect::Model, " asks a model", " ask a model"),
        (Effect::Commands, " runs commands", " run commands"),
    ];
    let mut words = Vec::new();
    for (effect, one, many) in kinds {
        let of_kind: Vec<_> = steps.iter().copied().filter(|step| effect_of(step.tool) == effect).collect();
        if of_kind.is_empty() {
            continue;
        }
        words.push(text(if words.is_empty() { "Later, without another question, " } else { ", " }));
        words.extend(names(&of_kind));
        words.push(text(if of_kind.len() == 1 { one } else { many }));
    }
    (!words.is_empty()).then_some(words)
}

/// Nothing starts before somebody resumes the run.
pub(super) fn paused<'a>(run: &Standing<'a>) -> Next<'a> {
    let lead = match run.stopped {
        Some((Some(actor), at)) => vec![text("Paused by "), Part::Actor(actor), text(", "), Part::At(at)],
        Some((None, at)) => vec![text("Paused, "), Part::At(at)],
        None => vec![text("Paused")],
    };
    let mut next = Next { error: run.failure, ..Next::new(Symbol::Paused, Tone::Warn, lead) };
    next.more.extend(run.progress());
    let (running, ready) = (run.in_state(StepStatus::Running), run.in_state(StepStatus::Ready));
    if !running.is_empty() {
        let verb =
            if running.len() == 1 { " still runs; its result counts" } else { " still run; their results count" };
        next.more.push(join([names(&running), vec![text(verb)]]));
    }
    if ready.is_empty() {
        next.more.push(vec![text("Nothing starts before somebody resumes the run")]);
    } else {
        let verb = if ready.len() == 1 { " is ready and starts" } else { " are ready and start" };
        next.more.push(join([names(&ready), vec![text(format!("{verb} when somebody resumes the run"))]]));
    }
    next.more
        .extend(run.deadline_at.map(|at| vec![text("The clock of the run goes on: it times out "), Part::Until(at)]));
    next.actions.push(Action::Resume);
    add_gates(&mut next, run);
    next
}
