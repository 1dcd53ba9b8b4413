//! `nofx retry`, `cancel`, `pause`, `resume`: what happens to a whole run.

use std::fmt::Write;

use anyhow::Result;
use nofx_local::report::printable;
use serde_json::json;
use shared::view::{Changed, RunChange};

use crate::client::api::Api;
use crate::client::error::about_run;
use crate::client::resolve;
use crate::commands::actor::Actor;
use crate::output::color::{DIM, GOOD, command, paint};
use crate::output::{self, Format, count};

/// How many names a line lists.
const LISTED: usize = 5;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The run: its id, the beginning or end of its id, or `last`
    run: String,
    #[command(flatten)]
    actor: Actor,
    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Copy, Debug)]
pub enum Verb {
    Retry,
    Cancel,
    Pause,
    Resume,
}

pub async fn run(api: &Api, verb: Verb, args: &Args) -> Result<()> {
    let run = resolve::run(api, &args.run).await?;
    let verb = match verb {
        Verb::Retry => "retry",
        Verb::Cancel => "cancel",
        Verb::Pause => "pause",
        Verb::Resume => "resume",
    };
    let body = args.actor.name().map_or_else(|| json!({}), |name| json!({ "actor": name }));
    let changed = api.post(&format!("/runs/{run}/{verb}"), &body).await;
    let change: RunChange = changed.map_err(|error| about_run(error, run))?;
    if args.format.json {
        return output::json(&change);
    }
    output::text(text(&change))
}

fn text(change: &RunChange) -> String {
    let id = change.id;
    let (done, next) = match change.result {
        Changed::Cancelled => ("cancelled", format!("nofx retry {id}")),
        Changed::Paused => ("paused", format!("nofx resume {id}")),
        Changed::Resumed => ("resumed", format!("nofx watch {id}")),
        Changed::Retried => ("retried", format!("nofx watch {id}")),
        Changed::Unchanged => ("unchanged", format!("nofx show {id}")),
    };
    let mut text = match (change.result, change.generation) {
        (Changed::Unchanged, _) => format!("{} the run {id} is already {}\n", paint(DIM, "–"), change.status),
        (_, Some(generation)) => format!("{} {done} {id}: generation {generation}\n", paint(GOOD, "✓")),
        (_, None) => format!("{} {done} {id}\n", paint(GOOD, "✓")),
    };
    for (names, what) in [
        (&change.stopped, "will not start"),
        (&change.was_running, "was running, and its result does not count"),
        (&change.still_running, "is still running, and its result counts"),
    ] {
        for names in names.iter().filter(|names| !names.is_empty()) {
            let _ = writeln!(text, "  {what}: {}", listed(names));
        }
    }
    let _ = writeln!(text, "  next: {}", command(next));
    text
}

fn listed(names: &[String]) -> String {
    let first: Vec<String> = names.iter().take(LISTED).map(|name| printable(name)).collect();
    match names.len().saturating_sub(LISTED) {
        0 => first.join(", "),
        more => format!("{} and {}", first.join(", "), count(more, "more step")),
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::RunStatus;

    use super::*;

    fn change(result: Changed, status: RunStatus) -> RunChange {
        let id = "0193c0de-0000-7000-8000-000000000001".parse().unwrap();
        RunChange { id, status, result, stopped: None, was_running: None, still_running: None, generation: None }
    }

    fn plain(change: &RunChange) -> String {
        anstream::adapter::strip_str(&text(change)).to_string()
    }

    #[test]
    fn a_change_says_what_it_did_and_what_is_next() {
        let mut retried = change(Changed::Retried, RunStatus::Running);
        retried.generation = Some(2);
        let expected = "✓ retried 0193c0de-0000-7000-8000-000000000001: generation 2\n  next: nofx watch \
                        0193c0de-0000-7000-8000-000000000001\n";
        assert_eq!(plain(&retried), expected);

        let mut cancelled = change(Changed::Cancelled, RunStatus::Cancelled);
        cancelled.stopped = Some((1..=7).map(|n| format!("s{n}")).collect());
        cancelled.was_running = Some(vec!["build".into()]);
        let text = plain(&cancelled);
        assert!(text.contains("  will not start: s1, s2, s3, s4, s5 and 2 more steps\n"), "{text}");
        assert!(text.contains("does not count: build\n"), "{text}");
        let unchanged = plain(&change(Changed::Unchanged, RunStatus::Paused));
        assert!(unchanged.starts_with("– the run 0193c0de-0000-7000-8000-000000000001 is already paused\n"));
    }
}
