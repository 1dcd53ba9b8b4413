//! The sentence of an event.

use std::borrow::Cow;

use super::event::{Payload, TimelineEvent};
use super::part::{Part, actor, artifact, code, gate, step, text};
use super::words;
use super::{Symbol, Tone};
use crate::domain::budget_gate::WaitsFor;
use crate::domain::gate::BUDGET;
use crate::domain::model_call::Because;

/// How an event is shown: symbol, tone and words.
pub(super) type Lead<'a> = (Symbol, Tone, Vec<Part<'a>>);

/// The sentence of any event. An unknown type gives its name and its step, so that nothing is lost.
pub(super) fn lead(event: &TimelineEvent) -> Lead<'_> {
    let (noun, verb) = event.kind.split_once('.').unwrap_or((&event.kind, ""));
    let known = match noun {
        "run" => of_run(event, verb),
        "step" => of_step(event, verb),
        "gate" => of_gate(event, verb),
        "rule" => of_rule(event, verb),
        _ => of_fact(event),
    };
    known.unwrap_or_else(|| {
        let mut words = vec![code(&event.kind)];
        if event.step.is_some() {
            words.extend([text(" of "), step(event)]);
        }
        (Symbol::Pending, Tone::Quiet, words)
    })
}

fn of_run<'a>(event: &'a TimelineEvent, verb: &str) -> Option<Lead<'a>> {
    let by = |words: &'static str| vec![actor(event), text(words)];
    Some(match verb {
        "created" => (Symbol::Run, Tone::Plain, created(event)),
        "started" => (Symbol::Arrow, Tone::Busy, vec![text("The run began")]),
        "blocked" => (Symbol::Decide, Tone::Warn, vec![text("The run waits: no step can go on before a gate passes")]),
        "unblocked" => (Symbol::Arrow, Tone::Busy, vec![text("The run goes on")]),
        "queued" => (Symbol::Ready, Tone::Quiet, vec![text("The run is queued again: a step is ready")]),
        "pause_requested" => (Symbol::Paused, Tone::Warn, by(" paused the run; running steps finish")),
        "paused" => (Symbol::Paused, Tone::Warn, vec![text("The run is paused")]),
        "resumed" => (Symbol::Arrow, Tone::Busy, by(" resumed the run")),
        "cancel_requested" => (Symbol::Cancelled, Tone::Quiet, by(" cancelled the run")),
        "timed_out" => (Symbol::Bad, Tone::Bad, vec![text("The run timed out")]),
        "retried" => {
            let generation = event.payload.generation.unwrap_or_default();
            let words = format!(" retried the run: generation {generation}; what succeeded is kept");
            (Symbol::Again, Tone::Busy, vec![actor(event), text(words)])
        }
        "succeeded" => (Symbol::Good, Tone::Good, vec![text("The run succeeded")]),
        "failed" => (Symbol::Bad, Tone::Bad, vec![text("The run failed")]),
        "cancelled" => (Symbol::Cancelled, Tone::Quiet, vec![text("The run ended as cancelled")]),
        _ => return None,
    })
}

fn created(event: &TimelineEvent) -> Vec<Part<'_>> {
    let mut words = match &event.payload.actor {
        Some(name) => vec![Part::Actor(name), text(" started the run")],
        None => vec![text("The run was created")],
    };
    words.extend(event.payload.steps.map(|steps| text(format!(" with {}", words::many(steps, "step")))));
    words
}

fn of_step<'a>(event: &'a TimelineEvent, verb: &str) -> Option<Lead<'a>> {
    let Payload { attempt, was, delay_ms, .. } = &event.payload;
    let attempt = attempt.unwrap_or_default();
    let words = |rest: &'static str| vec![step(event), text(rest)];
    Some(match verb {
        "ready" => (Symbol::Ready, Tone::Quiet, words(" can start")),
        "started" if attempt > 1 => {
            (Symbol::Arrow, Tone::Busy, vec![step(event), text(format!(" started, attempt {attempt}"))])
        }
        "started" => (Symbol::Arrow, Tone::Busy, words(" started")),
        "succeeded" => (Symbol::Good, Tone::Good, words(" succeeded")),
        "failed" => (Symbol::Bad, Tone::Bad, words(" failed for good")),
        "retrying" => {
            let mut words =
                vec![text(format!("Attempt {attempt} of ")), step(event), text(" failed; the next follows")];
            words.extend(delay_ms.map(|ms| [text(" in "), Part::Duration(ms)]).into_iter().flatten());
            (Symbol::Again, Tone::Warn, words)
        }
        "repairing" => {
            let (round, most) =
                (event.payload.round.unwrap_or_default(), event.payload.max_attempts.unwrap_or_default());
            let gate = event.payload.gate.as_deref().unwrap_or("a gate");
            let rest = text(format!(" failed; time {round} of at most {most}"));
            (Symbol::Again, Tone::Warn, vec![step(event), text(" generates again, because "), code(gate), rest])
        }
        "worker_lost" => {
            let rest = text(format!(" was lost in attempt {attempt}; another one takes over"));
            (Symbol::Lost, Tone::Bad, vec![text("The worker of "), step(event), rest])
        }
        "blocked" => (Symbol::Decide, Tone::Warn, words(" waits for a decision")),
        "skipped" => (Symbol::Skipped, Tone::Quiet, words(" was skipped, because another step failed")),
        "cancelled" => {
            let was = was.as_ref().map(|was| text(format!(" (it was {was})")));
            (Symbol::Cancelled, Tone::Quiet, words(" was cancelled").into_iter().chain(was).collect())
        }
        _ => return None,
    })
}

fn of_gate<'a>(event: &'a TimelineEvent, verb: &str) -> Option<Lead<'a>> {
    let is_decision = event.payload.actor.is_some();
    let by = |words: &'static str| vec![actor(event), text(words), gate(event)];
    let on_evidence = |words: &'static str| vec![text("The gate "), gate(event), text(words)];
    Some(match verb {
        "created" if event.payload.gate_type.as_deref() == Some(BUDGET) => {
            (Symbol::Decide, Tone::Warn, vec![text("Money is needed: "), gate(event)])
        }
        "created" => (Symbol::Decide, Tone::Warn, vec![text("A decision is needed: "), gate(event)]),
        "approved" => {
            let so_far = event.payload.approved.zip(event.payload.required);
            let words = so_far.map(|(approved, required)| text(format!(": {approved} of {required}")));
            (Symbol::Good, Tone::Quiet, by(" approved ").into_iter().chain(words).collect())
        }
        "linked" => {
            let whose = event.payload.person.as_deref().map(|name| [text(" for "), Part::Actor(name)]);
            let words = by(" made a link to ").into_iter().chain(whose.into_iter().flatten());
            (Symbol::Decide, Tone::Quiet, words.collect())
        }
        "reminder" => (Symbol::Decide, Tone::Warn, vec![text("A decision is still needed: "), gate(event)]),
        "kept" => (Symbol::Good, Tone::Quiet, vec![text("The approval still counts: "), gate(event)]),
        "voided" => (
            Symbol::Again,
            Tone::Warn,
            vec![text("What was decided has changed since, so it is asked again: "), gate(event)],
        ),
        "passed" if is_decision => (Symbol::Good, Tone::Good, by(" approved ")),
        "passed" if event.payload.gate_type.as_deref() == Some(BUDGET) => {
            (Symbol::Good, Tone::Quiet, vec![text("Nobody had to decide "), gate(event)])
        }
        "passed" => (Symbol::Good, Tone::Good, on_evidence(" passed on its evidence")),
        "failed" if is_decision => (Symbol::Bad, Tone::Bad, by(" rejected ")),
        "failed" => (Symbol::Bad, Tone::Bad, on_evidence(" failed on its evidence")),
        "waived" => {
            let words = by(" waived ").into_iter().chain([text(": it passed without approval")]);
            (Symbol::Waived, Tone::Warn, words.collect())
        }
        "expired" => (Symbol::Bad, Tone::Bad, vec![text("Nobody decided "), gate(event), text(" in time")]),
        "cancelled" => (Symbol::Cancelled, Tone::Quiet, vec![gate(event), text(" needs no decision any more")]),
        _ => return None,
    })
}

fn of_fact(event: &TimelineEvent) -> Option<Lead<'_>> {
    Some(match event.kind.as_str() {
        "artifact.created" => (Symbol::Doc, Tone::Quiet, vec![step(event), text(" stored "), artifact(event)]),
        "codegen.usage" | "llm.usage" => (Symbol::Model, Tone::Quiet, usage(event)),
        "llm.attempt" => (Symbol::Model, Tone::Quiet, attempt(event)),
        "llm.cached" => (Symbol::Model, Tone::Quiet, cached(&event.payload, step(event))),
        "budget.exhausted" => (Symbol::Decide, Tone::Warn, exhausted(&event.payload, step(event))),
        "budget.raised" => {
            let Payload { from_usd_micros, to_usd_micros, .. } = event.payload;
            let amounts =
                format!(" from {} to {}", from_usd_micros.unwrap_or_default(), to_usd_micros.unwrap_or_default());
            (Symbol::Arrow, Tone::Busy, vec![actor(event), text(" raised the run's budget"), text(amounts)])
        }
        "db_write.executed" => {
            (Symbol::Table, Tone::Good, [step(event), text(" ")].into_iter().chain(write(event)).collect())
        }
        "policy.set" => {
            let version = event.payload.version.unwrap_or_default();
            (Symbol::Run, Tone::Plain, vec![actor(event), text(format!(" set version {version} of the policy"))])
        }
        "queue.redriven" => {
            let moved = words::many(event.payload.moved.unwrap_or_default(), "dead letter");
            let handler = event.subject.as_deref().map_or(text("a handler"), code);
            let words = vec![actor(event), text(format!(" moved {moved} of ")), handler, text(" back to its queue")];
            (Symbol::Run, Tone::Plain, words)
        }
        _ => return None,
    })
}

fn of_rule<'a>(event: &'a TimelineEvent, verb: &str) -> Option<Lead<'a>> {
    let table = event.subject.as_deref().map_or(text("a table"), code);
    let words = match verb {
        "set" if event.payload.before.is_some() => vec![actor(event), text(" changed the rule of "), table],
        "set" => vec![actor(event), text(" allowed plans to write "), table],
        "deleted" => {
            vec![actor(event), text(" deleted the rule: plans may not write "), table, text(" any more")]
        }
        _ => return None,
    };
    Some((Symbol::Table, if verb == "deleted" { Tone::Warn } else { Tone::Quiet }, words))
}

/// Which model is asked, and why.
fn attempt(event: &TimelineEvent) -> Vec<Part<'_>> {
    let payload = &event.payload;
    let mut words = vec![step(event), text(" asks "), code(payload.model_requested.as_deref().unwrap_or("a model"))];
    match &payload.because {
        Some(Because::Retry { reason, .. }) => words.push(text(format!(" again: {}", words::cut(reason, 200)))),
        Some(Because::Fallback { model, reason, .. }) => {
            words.extend([text(" instead of "), code(model), text(format!(": {}", words::cut(reason, 200)))]);
        }
        Some(Because::First) | None => {}
    }
    words.extend(payload.reserved_usd_micros.map(|amount| text(format!(" (up to {amount})"))));
    words
}

/// Whose earlier answer a step took.
fn cached<'a>(payload: &'a Payload, step: Part<'a>) -> Vec<Part<'a>> {
    let model = code(payload.model.as_deref().unwrap_or("a model"));
    let age = payload.age_s.map(|age| format!("{} old", words::duration(age.saturating_mul(1000))));
    let saved = payload.saved_usd_micros.map(|amount| format!("saved {amount}"));
    let facts: Vec<String> = age.into_iter().chain(saved).collect();
    let mut words = vec![step, text(" took an earlier answer of "), model];
    if !facts.is_empty() {
        words.push(text(format!(" ({})", facts.join(", "))));
    }
    words
}

/// Which budget does not cover the next request of a step.
fn exhausted<'a>(payload: &Payload, step: Part<'a>) -> Vec<Part<'a>> {
    let whose = match payload.scope.as_deref() {
        Some("day") => "the tenant's budget of the day",
        Some("month") => "the tenant's budget of the month",
        _ => "the run's budget",
    };
    let (cap, needs) = (payload.cap_usd_micros.unwrap_or_default(), payload.needs_usd_micros.unwrap_or_default());
    let why = if payload.waits_for == Some(WaitsFor::Reserved) {
        format!("{whose} of {cap} covers when requests in flight end")
    } else {
        format!("{whose} of {cap} does not cover")
    };
    vec![step, text(format!(" waits for money: its next request needs up to {needs}, which {why}"))]
}

/// What a call cost: `$0.0012`, `$0.0012 reserved, tokens unknown`.
fn cost(payload: &Payload) -> Option<String> {
    let cost = payload.cost_usd_micros?;
    Some(match (payload.corrects_usd_micros, payload.estimated, payload.exceeds_reserved) {
        (Some(was), ..) => format!("{cost}, not {was}"),
        (None, Some(true), _) => format!("{cost}, all that was reserved, because its tokens are unknown"),
        (None, _, Some(true)) => match payload.reported_usd_micros {
            Some(reported) => format!("{cost}, all that was reserved, although {reported} was reported"),
            // Of earlier releases, which charged it.
            None => format!("{cost}, more than was reserved"),
        },
        _ => cost.to_string(),
    })
}

/// What a model did for a step.
fn usage(event: &TimelineEvent) -> Vec<Part<'_>> {
    let payload = &event.payload;
    if payload.provider.as_deref() == Some("template") {
        return vec![text("A template was filled in for "), step(event)];
    }
    let model = code(payload.model.as_deref().unwrap_or("A model"));
    let mut words = match (payload.late_attempt, payload.usable) {
        (Some(attempt), _) => {
            let lead = text(format!("Attempt {attempt} had lost "));
            vec![lead, step(event), text(" and still used "), model]
        }
        (None, Some(false)) if event.kind == "llm.usage" => {
            vec![model, text(" gave no usable answer to "), step(event)]
        }
        (None, Some(false)) => vec![model, text(" gave an answer to "), step(event), text(" that cannot be used")],
        (None, _) => vec![model, text(" answered "), step(event)],
    };
    let facts: Vec<String> = tokens(payload).into_iter().chain(cost(payload)).collect();
    if !facts.is_empty() {
        words.push(text(format!(" ({})", facts.join(", "))));
    }
    words.extend(fallback(payload).into_iter().flatten());
    words
}

/// `1,840 tokens in, 412 out`. None if the provider gave no number.
fn tokens(payload: &Payload) -> Option<String> {
    let input = payload.input_tokens.map(|count| format!("{} in", words::many(count, "token")));
    let out = payload.output_tokens.map(|count| match input {
        Some(_) => format!("{} out", words::thousands(count)),
        None => format!("{} out", words::many(count, "token")),
    });
    let counts: Vec<String> = input.into_iter().chain(out).collect();
    (!counts.is_empty()).then(|| counts.join(", "))
}

/// The models that were asked before.
fn fallback(payload: &Payload) -> Option<[Part<'_>; 3]> {
    let models: Vec<&str> = payload.fallback_from.iter().flatten().map(|one| one.model.as_str()).collect();
    let names = match models[..] {
        [] => return None,
        [one] => Cow::Borrowed(one),
        _ => Cow::Owned(models.join(" and ")),
    };
    Some([text(", after "), Part::Code(names), text(" did not")])
}

/// `wrote 3 rows into public.orders, exactly once`.
fn write(event: &TimelineEvent) -> [Part<'_>; 3] {
    let Payload { op, rows, table, .. } = &event.payload;
    let (verb, preposition) = match op.as_deref() {
        Some("update") => ("changed", "in"),
        Some("delete") => ("removed", "from"),
        _ => ("wrote", "into"),
    };
    let words = format!("{verb} {} {preposition} ", words::many(rows.unwrap_or_default(), "row"));
    [text(words), code(table.as_deref().unwrap_or("a table")), text(", exactly once")]
}

/// What an event adds in small print to another event of the same transition and step.
pub(super) fn also(event: &TimelineEvent) -> Option<Vec<Part<'_>>> {
    let payload = &event.payload;
    Some(match event.kind.as_str() {
        "gate.passed" => vec![text("passed on its evidence")],
        "gate.failed" => vec![text("failed on its evidence")],
        "gate.created" => vec![text("asked as "), gate(event)],
        "gate.expired" => vec![text("nobody decided "), gate(event), text(" in time")],
        "gate.cancelled" => vec![gate(event), text(" needs no decision any more")],
        "artifact.created" => vec![text("stored "), artifact(event)],
        "db_write.executed" => write(event).into(),
        "codegen.usage" if payload.provider.as_deref() == Some("template") => {
            vec![text("a template was filled in")]
        }
        "budget.exhausted" => exhausted(payload, text("it")),
        "llm.cached" => cached(payload, text("it")),
        "budget.raised" => vec![text(format!("the budget is {} now", payload.to_usd_micros.unwrap_or_default()))],
        "codegen.usage" | "llm.usage" => {
            let mut words = vec![code(payload.model.as_deref().unwrap_or("a model"))];
            if payload.usable == Some(false) {
                words.push(text(" gave an answer that cannot be used"));
            }
            words.extend(tokens(payload).into_iter().chain(cost(payload)).map(|fact| text(format!(", {fact}"))));
            words.extend(fallback(payload).into_iter().flatten());
            let reason = payload.reason.as_deref().filter(|_| payload.usable == Some(false));
            words.extend(reason.map(|reason| text(format!(": {}", words::cut(reason, 200)))));
            words
        }
        "step.ready" => vec![step(event), text(" can go on")],
        "step.succeeded" => vec![step(event), text(" succeeded with it")],
        "step.failed" => vec![step(event), text(" failed with it")],
        "step.skipped" => vec![step(event), text(" was skipped")],
        "step.started" | "step.cancelled" | "step.blocked" | "step.retrying" | "step.worker_lost" | "llm.attempt" => {
            return None;
        }
        _ => vec![code(&event.kind)],
    })
}

/// The fields of a rule that differ, one after another.
pub(super) fn differences(event: &TimelineEvent) -> Vec<Vec<Part<'_>>> {
    /// Longest value that is shown.
    const VALUE: usize = 80;
    let (Some(before), Some(after)) = (&event.payload.before, &event.payload.after) else { return Vec::new() };
    let fields = |rule: &serde_json::Value| rule.as_object().cloned().unwrap_or_default();
    let (before, after) = (fields(before), fields(after));
    let shown =
        |value: Option<&serde_json::Value>| value.map_or("none".into(), |value| words::cut(&value.to_string(), VALUE));
    let mut names: Vec<&String> =
        before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))).collect();
    names.sort();
    let changed = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    let said = |name: &String| {
        let words = format!(": {} → {}", shown(before.get(name)), shown(after.get(name)));
        vec![Part::Code(Cow::Owned(name.clone())), text(words)]
    };
    changed.map(said).collect()
}
