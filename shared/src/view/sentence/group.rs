//! Events to entries: what belongs together, what another event already says, and what leads.

use std::collections::HashMap;

use super::event::TimelineEvent;
use super::part::{Part, text};
use super::{Entry, lead, words};
use crate::domain::Timestamp;

/// A step that is ready for longer without a start is worth an entry, in ms.
const IDLE_MS: i64 = 10_000;
/// More steps that one transition ended are one entry.
const MANY: usize = 5;

/// An event, with what only its neighbours know.
struct Item<'a> {
    event: &'a TimelineEvent,
    /// From the start of the step's first attempt until this event.
    took_ms: Option<i64>,
    /// Whether a later attempt of the step made it.
    is_later: bool,
    /// A step that became ready: nothing happened to it for a while.
    is_idle: bool,
}

/// The entries of a page of events, which are in the order of their sequence numbers. `now_ms` (milliseconds since 1970)
/// is given if the page has the newest events: what happened to a step after an older page is not known.
pub fn entries(events: &[TimelineEvent], now_ms: Option<i64>) -> Vec<Entry<'_>> {
    let items = items(events, now_ms);
    let mut found = Vec::with_capacity(items.len());
    for transition in items.chunk_by(|a, b| a.event.timestamp == b.event.timestamp) {
        add_transition(transition, &mut found);
    }
    found
}

fn items(events: &[TimelineEvent], now_ms: Option<i64>) -> Vec<Item<'_>> {
    let times: Vec<Option<i64>> = events.iter().map(|event| event.timestamp.epoch_ms()).collect();
    let mut next: HashMap<&str, Option<i64>> = HashMap::new();
    let mut idle = vec![false; events.len()];
    for (at, event) in events.iter().enumerate().rev() {
        let Some(step) = event.step_name() else { continue };
        let then = next.insert(step, times[at]).unwrap_or(now_ms);
        let waited_ms = then.zip(times[at]).map(|(then, from)| then - from);
        idle[at] = event.kind == "step.ready" && waited_ms.is_some_and(|ms| ms > IDLE_MS);
    }
    // Attempt numbers go on after a retry of the run and after a repair, so there the first start counts whatever its number.
    let (mut starts, mut has_retry) = (HashMap::<&str, i64>::new(), false);
    let mut newest = HashMap::<&str, i64>::new();
    let found = events.iter().zip(times).zip(idle).map(|((event, at_ms), is_idle)| {
        let (mut took_ms, mut is_later) = (None, false);
        if let ("step.started", Some(step), Some(at_ms)) = (event.kind.as_str(), &event.step, at_ms) {
            newest.insert(&step.name, at_ms);
        }
        match (event.kind.as_str(), &event.step) {
            // Steps start anew.
            ("run.retried" | "step.repairing", _) => {
                has_retry = true;
                starts.clear();
            }
            ("step.started", Some(step)) if has_retry || event.payload.attempt.is_none_or(|attempt| attempt <= 1) => {
                if let Some(at_ms) = at_ms {
                    starts.entry(&step.name).or_insert(at_ms);
                }
            }
            ("step.succeeded", Some(step)) => {
                let start =
                    step.started_at.as_ref().map_or(starts.get(step.name.as_str()).copied(), Timestamp::epoch_ms);
                took_ms = at_ms.zip(start).map(|(end, start)| end - start).filter(|ms| *ms >= 0);
                is_later = start.zip(newest.get(step.name.as_str())).is_some_and(|(first, newest)| first < *newest);
            }
            _ => {}
        }
        Item { event, took_ms, is_later, is_idle }
    });
    found.collect()
}

/// What the events of a transition know of each other.
struct Context<'a> {
    /// How many events of each type there are.
    counts: HashMap<&'a str, usize>,
    /// Steps whose failure started a repair.
    repaired: Vec<&'a str>,
}

impl<'a> Context<'a> {
    fn of(transition: &[Item<'a>]) -> Self {
        let mut counts = HashMap::new();
        for item in transition {
            *counts.entry(item.event.kind.as_str()).or_default() += 1;
        }
        let repairs = transition.iter().filter(|item| item.event.kind == "step.repairing");
        Self { counts, repaired: repairs.filter_map(|item| item.event.payload.gate.as_deref()).collect() }
    }

    fn count(&self, kind: &str) -> usize {
        self.counts.get(kind).copied().unwrap_or_default()
    }

    fn is_repaired(&self, event: &TimelineEvent) -> bool {
        event.kind == "step.failed" && event.step_name().is_some_and(|step| self.repaired.contains(&step))
    }

    fn has(&self, kind: &str) -> bool {
        self.count(kind) > 0
    }

    fn has_gate(&self) -> bool {
        self.counts.keys().any(|kind| kind.starts_with("gate."))
    }

    /// Whether another entry of the transition says it.
    fn is_told(&self, item: &Item<'_>) -> bool {
        match item.event.kind.as_str() {
            "run.started" => self.has("run.retried"),
            "run.unblocked" => self.has_gate(),
            "run.blocked" => self.has("step.blocked"),
            "run.paused" => self.has("run.pause_requested") && item.event.payload.failure.is_none(),
            "run.cancelled" => self.has("run.cancel_requested"),
            // What ended with the run is counted in the entry of its end.
            "step.cancelled" | "gate.cancelled" => self.has("run.cancel_requested") || self.has("run.timed_out"),
            "step.ready" => !item.is_idle && !self.has_gate(),
            _ => false,
        }
    }

    /// How many steps of the transition had the same fate, if they are one entry.
    fn many(&self, kind: &str) -> Option<usize> {
        let is_fate = matches!(kind, "step.skipped" | "step.cancelled");
        Some(self.count(kind)).filter(|count| is_fate && *count > MANY)
    }

    /// `5 steps, 1 gate`.
    fn ended(&self) -> Option<String> {
        let counts = [(self.count("step.cancelled"), "step"), (self.count("gate.cancelled"), "gate")];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let words: Vec<String> = counts.map(|(count, noun)| words::many(count as u64, noun)).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

fn add_transition<'a>(transition: &[Item<'a>], found: &mut Vec<Entry<'a>>) {
    let context = Context::of(transition);
    let mut groups: Vec<Vec<&Item<'a>>> = Vec::new();
    let (mut group_of, mut has_many) = (HashMap::<&str, usize>::new(), [false; 2]);
    for item in transition.iter().filter(|item| !context.is_told(item)) {
        if context.many(&item.event.kind).is_some() {
            let seen = &mut has_many[usize::from(item.event.kind == "step.skipped")];
            if !std::mem::replace(seen, true) {
                groups.push(vec![item]);
            }
            continue;
        }
        let Some(step) = item.event.step_name() else {
            groups.push(vec![item]);
            continue;
        };
        let at = *group_of.entry(step).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Vec::new());
        }
        groups[at].push(item);
    }
    // A step that can go on is news only beside the decision that let it.
    let is_news = |group: &Vec<&Item<'_>>| group.len() > 1 || group[0].is_idle || group[0].event.kind != "step.ready";
    found.extend(groups.iter().filter(|group| is_news(group)).map(|group| entry(group, &context)));
}

/// The event that tells most comes first. Between equals the earlier one leads.
fn rank(event: &TimelineEvent) -> usize {
    const LEADS: [&str; 13] = [
        "step.failed",
        "step.blocked",
        "step.retrying",
        "step.worker_lost",
        "step.succeeded",
        "step.cancelled",
        "step.skipped",
        "step.started",
        "gate.waived",
        "gate.passed",
        "gate.failed",
        "gate.expired",
        "gate.created",
    ];
    if event.is_decision() {
        return 0;
    }
    1 + LEADS.iter().position(|kind| *kind == event.kind).unwrap_or(LEADS.len())
}

fn entry<'a>(group: &[&Item<'a>], context: &Context<'_>) -> Entry<'a> {
    let mut leading = group[0];
    for item in group {
        if rank(item.event) < rank(leading.event) {
            leading = item;
        }
    }
    let event = leading.event;
    let (symbol, tone, mut sentence) = lead::lead(event);
    if context.is_repaired(event) {
        sentence.truncate(1);
        sentence.push(text(" failed"));
    }
    let mut entry = Entry {
        seq: event.seq,
        timestamp: &event.timestamp,
        symbol,
        tone,
        sentence,
        error: error_of(event),
        also: Vec::new(),
        quote: None,
    };
    if let Some(count) = context.many(&event.kind) {
        let fate = if event.kind == "step.skipped" { "skipped, because another step failed" } else { "cancelled" };
        entry.sentence = vec![text(format!("{} were {fate}", words::many(count as u64, "step")))];
        return entry;
    }
    add_small_print(&mut entry, leading, group, context);
    if let (Some(error), Some(step)) = (entry.error, &event.step) {
        entry.error = Some(words::without_name(error, &step.name));
    }
    entry
}

fn error_of(event: &TimelineEvent) -> Option<&str> {
    let payload = &event.payload;
    if matches!(event.kind.as_str(), "codegen.usage" | "llm.usage") {
        return payload.reason.as_deref().filter(|_| payload.usable == Some(false));
    }
    payload.error.as_ref().or(payload.failure.as_ref()).map(|error| error.message.as_str())
}

fn add_small_print<'a>(entry: &mut Entry<'a>, leading: &Item<'a>, group: &[&Item<'a>], context: &Context<'_>) {
    let event = leading.event;
    let is_own = |item: &&&Item<'a>| std::ptr::eq(item.event, event);
    let on_evidence = |item: &&Item<'a>| item.event.kind == "gate.passed" && !item.event.is_decision();
    if event.kind == "step.succeeded" {
        let passed = group.iter().any(on_evidence);
        if passed && let Some(Part::Step { .. }) = entry.sentence.first() {
            entry.sentence.truncate(1);
            entry.sentence.push(text(" passed its gate"));
        }
        match (leading.took_ms, event.payload.attempt.filter(|attempt| leading.is_later && *attempt > 1)) {
            // Beside its number, the time would read as that of the attempt.
            (Some(ms), Some(attempt)) => {
                let since = text(format!(" after its first start, in attempt {attempt}"));
                entry.sentence.extend([text(" "), Part::Duration(ms), since]);
            }
            (Some(ms), None) => entry.sentence.extend([text(" after "), Part::Duration(ms)]),
            (None, _) => {}
        }
        entry.also.extend(
            group.iter().filter(|item| !is_own(item) && !on_evidence(item)).filter_map(|item| lead::also(item.event)),
        );
    } else {
        entry.also.extend(group.iter().filter(|item| !is_own(item)).filter_map(|item| lead::also(item.event)));
    }
    match event.kind.as_str() {
        "step.failed" => {
            let lost =
                event.payload.workers_lost.map(|count| text(format!("after {}", words::many(count, "lost worker"))));
            entry.also.extend(lost.map(|words| vec![words]));
        }
        "run.cancel_requested" | "run.timed_out" => entry.also.extend(context.ended().map(|ended| vec![text(ended)])),
        "rule.set" => entry.also = lead::differences(event),
        _ => {}
    }
    let reasons = group.iter().filter(|item| matches!(item.event.kind.split('.').next(), Some("gate" | "policy")));
    let reason =
        reasons.filter_map(|item| item.event.payload.reason.as_deref()).find(|reason| !reason.trim().is_empty());
    entry.quote = reason.filter(|reason| entry.error != Some(reason));
}
