//! Entries of a timeline as lines: a time, a symbol and a sentence.

use std::collections::HashMap;
use std::fmt::Write;

use anstyle::Style;
use nofx_local::report::printable;
use shared::domain::Timestamp;
use shared::view::Event;
use shared::view::sentence::{Entry, Symbol, TimelineEvent, Tone, entries, plain};

use super::color::{BAD, DIM, GOOD, LIVE, PLAIN, WAIT, paint};
use super::{printable_lines, time};

/// Maximum number of lines of an error or of a reason. `nofx show` has all of them.
const MAX_LINES: usize = 12;
/// What is below a sentence starts at the column of its words.
const INDENT: &str = "                ";

/// Tells a run's events as they arrive, one transition after another.
#[derive(Debug, Default)]
pub struct Story {
    /// Steps to the start of their first attempt since they started anew: later sentences say how long a step took.
    starts: HashMap<String, Timestamp>,
}

impl Story {
    /// The lines of a transition.
    pub fn tell(&mut self, transition: &[Event]) -> String {
        let events: Vec<TimelineEvent> = transition.iter().map(|event| self.with_start(event)).collect();
        entries(&events, None).iter().map(entry).collect()
    }

    fn with_start(&mut self, event: &Event) -> TimelineEvent {
        let mut told = TimelineEvent::from(event);
        match (event.kind.as_str(), &mut told.step) {
            ("run.retried" | "step.repairing", _) => self.starts.clear(),
            ("step.started", Some(step)) => {
                self.starts.entry(step.name.clone()).or_insert_with(|| event.timestamp.clone());
            }
            (_, Some(step)) => step.started_at = self.starts.get(&step.name).cloned(),
            _ => {}
        }
        told
    }
}

/// The lines of an entry.
pub fn entry(entry: &Entry<'_>) -> String {
    let style = style(entry.tone);
    let time = paint(DIM, printable(time::clock(entry.timestamp)));
    let sentence = printable(&plain(&entry.sentence));
    let mut text = format!("{time}  {} {sentence}", paint(style, symbol(entry.symbol)));
    let mut error = printable_lines(entry.error.unwrap_or_default());
    if let Some(first) = error.next() {
        let _ = write!(text, ": {}", paint(style, first));
    }
    if !entry.also.is_empty() {
        let also: Vec<String> = entry.also.iter().map(|parts| printable(&plain(parts))).collect();
        let _ = write!(text, "  {}", paint(DIM, also.join(" · ")));
    }
    text.push('\n');
    for line in error.take(MAX_LINES - 1) {
        let _ = writeln!(text, "{INDENT}{line}");
    }
    for line in printable_lines(entry.quote.unwrap_or_default()).take(MAX_LINES) {
        let _ = writeln!(text, "{INDENT}{}", paint(DIM, format_args!("│ {line}")));
    }
    text
}

/// The symbols of states mean the same here.
fn symbol(symbol: Symbol) -> char {
    match symbol {
        Symbol::Run | Symbol::Pending => '·',
        Symbol::Arrow => '→',
        Symbol::Decide => '◆',
        Symbol::Ready => '○',
        Symbol::Paused => '‖',
        Symbol::Skipped | Symbol::Cancelled => '–',
        Symbol::Again => '↻',
        Symbol::Good | Symbol::Waived => '✓',
        Symbol::Bad | Symbol::Lost => '✗',
        Symbol::Doc | Symbol::Model | Symbol::Table => '+',
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => PLAIN,
        Tone::Good => GOOD,
        Tone::Bad => BAD,
        Tone::Warn => WAIT,
        Tone::Busy => LIVE,
        Tone::Quiet => DIM,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::view::sentence::{TimelineEvent, entries};

    use super::super::board::samples::{GATE, event};
    use super::*;

    fn shown(events: &[Event]) -> String {
        let events: Vec<TimelineEvent> = events.iter().map(TimelineEvent::from).collect();
        let text: String = entries(&events, None).iter().map(entry).collect();
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn a_step_took_the_time_since_it_started_anew() {
        let mut story = Story::default();
        let told: Vec<String> = [
            event(1, Some("lint"), "step.started", &json!({"attempt": 1})),
            event(2, Some("lint"), "step.retrying", &json!({"attempt": 1})),
            event(3, Some("lint"), "step.started", &json!({"attempt": 2})),
            event(6, Some("lint"), "step.succeeded", &json!({"attempt": 2})),
            event(7, None, "run.retried", &json!({"generation": 2, "actor": "ann"})),
            event(8, Some("lint"), "step.started", &json!({"attempt": 3})),
            event(9, Some("lint"), "step.succeeded", &json!({"attempt": 3})),
            event(10, Some("code"), "step.repairing", &json!({"gate": "unit", "round": 2, "max_attempts": 3})),
            event(12, Some("lint"), "step.started", &json!({"attempt": 4})),
            event(14, Some("lint"), "step.succeeded", &json!({"attempt": 4})),
        ]
        .iter()
        .map(|event| story.tell(std::slice::from_ref(event)))
        .collect();
        assert!(told[3].ends_with("lint succeeded after 5.0 s\n"), "{told:#?}");
        assert!(told[6].ends_with("lint succeeded after 1.0 s\n"), "{told:#?}");
        assert!(told[9].ends_with("lint succeeded after 2.0 s\n"), "{told:#?}");
    }

    #[test]
    fn an_event_is_a_sentence_with_its_error_and_its_reason_below() {
        let error = json!({"error": {"code": "c", "message": "3 problems\n\u{1b}[2Jsrc/a.ts:1"}, "attempt": 2});
        let gate = json!({"gate_id": GATE, "gate_type": "manual:deploy", "actor": "ann", "decision": "approve",
            "reason": "looks\ngood"});
        let events = [
            event(1, Some("lint"), "step.started", &json!({"attempt": 1})),
            event(3, Some("lint"), "step.failed", &error),
            event(4, Some("ask"), "gate.passed", &gate),
            event(4, Some("ask"), "step.succeeded", &json!({})),
        ];
        let expected = "\
10:00:01.000  → lint started
10:00:03.000  ✗ lint failed for good: 3 problems
                \\u{1b}[2Jsrc/a.ts:1
10:00:04.000  ✓ ann approved manual:deploy  ask succeeded with it
                │ looks
                │ good
";
        assert_eq!(shown(&events), expected);
    }
}
