//! `nofx timeline`: what happened in a run, in sentences.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use nofx_local::report::printable;
use shared::domain::StepId;
use shared::view::Event;
use shared::view::sentence::{Entry, EventKind, TimelineEvent, entries};

use crate::client::api::Api;
use crate::client::{resolve, timeline};
use crate::output::color::{DIM, command, paint};
use crate::output::{self, Format, shell_word, story, time};

/// How many events are shown unless a limit is given.
const LIMIT: u32 = 200;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The run: its id, the beginning or end of its id, or `last`
    run: String,
    /// Only events of this kind
    #[arg(long, value_parser = kinds())]
    kind: Option<EventKind>,
    /// Only events of this step
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// Show the newest N events
    #[arg(long, value_name = "N", default_value_t = LIMIT, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only events before the one with this number: an older page
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..))]
    before: Option<i64>,
    #[command(flatten)]
    format: Format,
}

/// Kinds as clap lists and completes them.
fn kinds() -> impl TypedValueParser<Value = EventKind> {
    PossibleValuesParser::new(EventKind::ALL.map(EventKind::as_str)).try_map(|word| word.parse())
}

/// Prints the newest events, the oldest of them first.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let run = resolve::run(api, &args.run).await?;
    let step = match &args.step {
        Some(name) => Some(resolve::step(api, run, name).await?.id),
        None => None,
    };
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let page = timeline::newest(api, run, args.before, limit, |event| is_wanted(event, args.kind, step)).await?;
    if args.format.json {
        return output::json(&page.events);
    }
    if page.events.is_empty() {
        output::note(format_args!("there are no such events; {} lists all", command(format!("nofx timeline {run}"))));
        return Ok(());
    }
    let events: Vec<TimelineEvent> = page.events.iter().map(TimelineEvent::from).collect();
    let now_ms = args.before.is_none().then(now_ms).flatten();
    output::text(text(&entries(&events, now_ms)))?;
    if let Some(older) = page.older {
        output::note(format_args!("older: {}", command(older_page(args, &run.to_string(), older))));
    }
    Ok(())
}

fn is_wanted(event: &Event, kind: Option<EventKind>, step: Option<StepId>) -> bool {
    kind.is_none_or(|kind| kind.types().contains(&event.kind.as_str()))
        && step.is_none_or(|id| event.step_id == Some(id))
}

fn now_ms() -> Option<i64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|now| now.as_millis().try_into().ok())
}

/// The entries, below the date of their day.
fn text(entries: &[Entry<'_>]) -> String {
    let mut text = String::new();
    let mut day = "";
    for entry in entries {
        let date = time::date(entry.timestamp);
        if date != day {
            text.push_str(&paint(DIM, format_args!("{} UTC", printable(date))));
            text.push('\n');
            day = date;
        }
        text.push_str(&story::entry(entry));
    }
    text
}

/// The command for the page before this one.
fn older_page(args: &Args, run: &str, older: i64) -> String {
    let limit = if args.limit == LIMIT { String::new() } else { format!(" --limit {}", args.limit) };
    let kind = args.kind.map(|kind| format!(" --kind {kind}")).unwrap_or_default();
    let step = args.step.as_deref().map(|step| format!(" --step {}", shell_word(step))).unwrap_or_default();
    format!("nofx timeline {run} --before {older}{limit}{kind}{step}")
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;
    use serde_json::json;

    use super::*;
    use crate::output::board::samples::event;

    fn args(words: &[&str]) -> Result<Args, clap::Error> {
        let command = <Args as clap::Args>::augment_args(clap::Command::new("timeline"));
        let matches = command.try_get_matches_from([&["timeline", "last"], words].concat())?;
        Args::from_arg_matches(&matches)
    }

    #[test]
    fn a_day_has_its_date_above_its_events() {
        let mut events = [event(1, None, "run.started", &json!({})), event(2, None, "run.succeeded", &json!({}))];
        events[1].timestamp.0 = "2026-11-24T00:00:00.000000+00:00".into();
        let events: Vec<TimelineEvent> = events.iter().map(TimelineEvent::from).collect();
        let text = anstream::adapter::strip_str(&text(&entries(&events, None))).to_string();
        let expected = "\
2026-11-23 UTC
10:00:01.000  → The run began
2026-11-24 UTC
00:00:00.000  ✓ The run succeeded
";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_older_page_has_the_same_filters() {
        let args = args(&["--kind", "gates", "--step", "a step", "--limit", "5"]).unwrap();
        let expected = "nofx timeline 0193 --before 7 --limit 5 --kind gates --step 'a step'";
        assert_eq!(older_page(&args, "0193", 7), expected);
    }

    #[test]
    fn a_wrong_kind_gets_a_suggestion() {
        let error = args(&["--kind", "gate"]).unwrap_err().to_string();
        assert!(error.contains("gates") && error.contains("problems"), "{error}");
    }

    #[test]
    fn problems_are_wanted_whatever_they_happened_to() {
        let failed = event(1, Some("lint"), "step.failed", &json!({}));
        assert!(is_wanted(&failed, Some(EventKind::Problems), None) && is_wanted(&failed, None, None));
        assert!(!is_wanted(&failed, Some(EventKind::Gates), None));
        assert!(!is_wanted(&failed, None, "0193c0de-0000-7000-8000-000000000002".parse().ok()));
    }
}
