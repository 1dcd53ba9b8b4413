//! Runs that have not ended.

use super::standing::{StepNow, join, names};
use super::{Action, Next, Standing};
use crate::domain::StepStatus;
use crate::domain::gate::GATE_CHANGE;
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
    let pending: Vec<_> = run.pending_gates().collect();
    let words = match pending.as_slice() {
        [] => return,
        [gate] => vec![gate.part(), text(" waits for a decision")],
        _ => vec![text(format!("{} wait for a decision", many(pending.len() as u64, "gate")))],
    };
    next.more.push(words);
    next.actions.push(Action::Decide(pending[0].id));
}

fn add_deadline<'a>(next: &mut Next<'a>, run: &Standing<'a>) {
    next.more.extend(run.deadline_at.map(|at| vec![text("The run times out "), Part::Until(at)]));
}

/// Nothing goes on before a person decides.
pub(super) fn blocked<'a>(run: &Standing<'a>) -> Next<'a> {
    let pending: Vec<_> = run.pending_gates().collect();
    let [first, others @ ..] = pending.as_slice() else {
        let lead = vec![text("Waits: no step can go on before a decision")];
        return Next::new(Symbol::Decide, Tone::Warn, lead);
    };
    let is_one_change = pending.iter().all(|gate| gate.gate_type == GATE_CHANGE);
    let mut lead = vec![text("Has waited "), Part::Since(first.created_at), text(" for ")];
    match (is_one_change, others.len(), first.step) {
        (true, ..) => lead.push(text("a decision about a change of its own checks")),
        (false, 0, Some(step)) => lead.extend([text("a decision about "), of_step(run, step)]),
        (false, 0, None) => lead.extend([text("a decision about "), first.part()]),
        (false, ..) => lead.push(text(format!("{} decisions", pending.len()))),
    }
    let mut next = Next::new(Symbol::Decide, Tone::Warn, lead);
    if is_one_change && !others.is_empty() {
        next.more.push(vec![text("One decision answers all gates that ask about the same change")]);
    }
    next.more.extend(run.progress());
    add_consequence(&mut next, run, first.step.filter(|_| others.is_empty()));
    let expiry = match first.expires_at {
        Some(at) if others.is_empty() => vec![text("The gate expires "), Part::Until(at)],
        Some(at) => vec![text("The oldest expires "), Part::Until(at)],
        None if others.is_empty() => vec![text("The gate has no expiry")],
        None => vec![text("The oldest has no expiry")],
    };
    next.more.push(expiry);
    add_deadline(&mut next, run);
    next.actions.push(Action::Decide(first.id));
    next
}

fn of_step<'a>(run: &Standing<'a>, name: &'a str) -> Part<'a> {
    let step = run.steps.iter().find(|step| step.name == name);
    step.map_or(Part::Step { name, ordinal: None }, StepNow::part)
}

/// What an approval starts.
fn add_consequence<'a>(next: &mut Next<'a>, run: &Standing<'a>, step: Option<&str>) {
    let follows = step.map(|name| run.next_after(name)).unwrap_or_default();
    if follows.is_empty() {
        return;
    }
    let writes = follows.iter().any(|step| step.tool == "db_write");
    let (one, many) = if writes {
        (" starts and writes to the database", " start, with a write to the database")
    } else {
        (" starts", " start")
    };
    let verb = if follows.len() == 1 { one } else { many };
    next.more.push(join([vec![text("After an approval ")], names(&follows), vec![text(verb)]]));
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
