//! `nofx queues`: how full the queues of handlers are, and what no worker could take.

use std::fmt::Write;
use std::time::SystemTime;

use anyhow::Result;
use clap::Subcommand;
use nofx_local::report::printable;
use serde_json::json;
use shared::http::encoded;
use shared::view::{DeadLetter, QueueDepth, QueueDetail, QueueList, Redriven};

use crate::client::api::Api;
use crate::client::error::{ApiError, Kind};
use crate::client::resolve::did_you_mean;
use crate::commands::actor::Actor;
use crate::output::color::{BAD, DIM, GOOD, command, paint};
use crate::output::table::{Table, cell, styled};
use crate::output::{self, Format, count, time};

#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(flatten)]
    format: Format,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Show a handler's queues, and up to 10 of its dead letters
    Show {
        /// The handler, such as gate
        handler: String,
        #[command(flatten)]
        format: Format,
    },
    /// Move up to 100 dead letters of a handler back to its queue
    Redrive(RedriveArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct RedriveArgs {
    /// The handler, such as gate
    handler: String,
    #[command(flatten)]
    actor: Actor,
    #[command(flatten)]
    format: Format,
}

/// `nofx queues`. Without a subcommand, lists the queues of all handlers.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    match &args.command {
        None => list(api, args.format).await,
        Some(Command::Show { handler, format }) => show(api, handler, *format).await,
        Some(Command::Redrive(args)) => redrive(api, args).await,
    }
}

async fn list(api: &Api, format: Format) -> Result<()> {
    let list: QueueList = api.get("/queues").await?;
    if format.json {
        return output::json(&list);
    }
    output::text(table(&list.queues))?;
    let full: Vec<&QueueDepth> = list.queues.iter().filter(|queue| queue.dead_letters > 0).collect();
    if let Some(first) = full.first() {
        let show = command(format!("nofx queues show {}", printable(&first.handler)));
        output::note(format_args!("\n{} has dead letters: {show}", count(full.len(), "handler")));
    }
    Ok(())
}

async fn show(api: &Api, handler: &str, format: Format) -> Result<()> {
    let found = api.get::<QueueDetail>(&format!("/queues/{}", encoded(handler))).await;
    let detail = match found {
        Ok(detail) => detail,
        Err(error) => return Err(suggested(api, handler, error).await),
    };
    if format.json {
        return output::json(&detail);
    }
    output::text(detail_text(&detail, SystemTime::now()))
}

async fn redrive(api: &Api, args: &RedriveArgs) -> Result<()> {
    let body = args.actor.name().map_or_else(|| json!({}), |name| json!({ "actor": name }));
    let done = api.post::<Redriven>(&format!("/queues/{}/redrive", encoded(&args.handler)), &body).await;
    let redriven = match done {
        Ok(redriven) => redriven,
        Err(error) => return Err(suggested(api, &args.handler, error).await),
    };
    if args.format.json {
        return output::json(&redriven);
    }
    output::text(redriven_text(&redriven))
}

/// The error, or a better one if there is no such handler.
async fn suggested(api: &Api, handler: &str, error: anyhow::Error) -> anyhow::Error {
    if error.downcast_ref::<ApiError>().is_none_or(|error| error.kind != Kind::NotFound) {
        return error;
    }
    let Ok(list) = api.get::<QueueList>("/queues").await else { return error };
    let names = || list.queues.iter().map(|queue| queue.handler.as_str());
    let hint = did_you_mean(handler, names())
        .unwrap_or_else(|| format!("the handlers are {}", names().collect::<Vec<_>>().join(", ")));
    ApiError::not_found(format!("there is no handler {}", printable(handler)), hint).into()
}

fn table(queues: &[QueueDepth]) -> Table {
    let head = ["HANDLER", "WAITING", "IN FLIGHT", "DELAYED", "DEAD LETTERS"];
    let mut table = Table::new(&head).whole(&[0, 1, 2, 3, 4]).right(1).right(2).right(3).right(4);
    for QueueDepth { handler, waiting, in_flight, delayed, dead_letters } in queues {
        let number = |number: u64, style| styled(number.to_string(), if number == 0 { DIM } else { style });
        let plain = anstyle::Style::new();
        table.row(vec![
            cell(handler),
            number(*waiting, plain),
            number(*in_flight, plain),
            number(*delayed, plain),
            number(*dead_letters, BAD),
        ]);
    }
    table
}

fn detail_text(detail: &QueueDetail, now: SystemTime) -> String {
    let mut text = table(std::slice::from_ref(&detail.depth)).to_string();
    for letter in &detail.messages {
        text.push('\n');
        text.push_str(&letter_text(letter, now));
    }
    let total = usize::try_from(detail.depth.dead_letters).unwrap_or(usize::MAX);
    if total > 0 {
        let redrive = command(format!("nofx queues redrive {}", printable(&detail.depth.handler)));
        let _ = writeln!(text, "\nmove {} back: {redrive}", count(total, "dead letter"));
    }
    text
}

fn letter_text(letter: &DeadLetter, now: SystemTime) -> String {
    let mut text = format!("{} {}", paint(BAD, "✗"), printable(&letter.id));
    if let Some(sent_at) = &letter.sent_at {
        let _ = write!(text, "  {}", paint(DIM, format_args!("sent {}", time::ago(sent_at, now))));
    }
    let _ = writeln!(text, "\n  {}", printable(&letter.reason));
    if let Some(step) = &letter.step {
        let (name, goal) = (printable(&step.name), printable(&step.goal));
        let _ = writeln!(text, "  step {name} ({}) of the run {}  {}", step.status, step.run_id, paint(DIM, goal));
    } else if let Some(body) = &letter.body {
        let _ = writeln!(text, "  {}", paint(DIM, printable(body)));
    }
    text
}

fn redriven_text(redriven: &Redriven) -> String {
    let handler = printable(&redriven.handler);
    if redriven.moved == 0 {
        return format!("{} the handler {handler} has no dead letters\n", paint(DIM, "–"));
    }
    let moved = count(usize::try_from(redriven.moved).unwrap_or(usize::MAX), "dead letter");
    let mut text = format!("{} moved {moved} back to the queue of {handler}\n", paint(GOOD, "✓"));
    if redriven.more {
        let _ = writeln!(text, "  more may be left: {}", command(format!("nofx queues redrive {handler}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::time::parse;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn dead_letters_are_shown_with_their_step_and_what_to_do() {
        let detail = json!({
            "handler": "gate", "waiting": 3, "in_flight": 1, "delayed": 0, "dead_letters": 2,
            "messages": [
                {"id": "m-1", "sent_at": "2026-11-23T10:00:00+00:00", "reason": "Its step is ready.", "body": "{}",
                    "step": {"id": "0193c0de-0000-7000-8000-000000000002", "name": "lint", "status": "ready",
                        "run_id": "0193c0de-0000-7000-8000-000000000001", "goal": "g"}},
                {"id": "m-2", "sent_at": null, "reason": "It is not a wake-up.", "body": "x\u{1b}[2J", "step": null},
            ],
        });
        let detail: QueueDetail = serde_json::from_value(detail).unwrap();
        let expected = "\
HANDLER  WAITING  IN FLIGHT  DELAYED  DEAD LETTERS
gate           3          1        0             2

✗ m-1  sent 3 min ago
  Its step is ready.
  step lint (ready) of the run 0193c0de-0000-7000-8000-000000000001  g

✗ m-2
  It is not a wake-up.
  x\\u{1b}[2J

move 2 dead letters back: nofx queues redrive gate
";
        assert_eq!(plain(&detail_text(&detail, parse("2026-11-23T10:03:00Z").unwrap())), expected);
    }

    #[test]
    fn a_redrive_says_whether_something_is_left() {
        let redriven = |moved, more| plain(&redriven_text(&Redriven { handler: "gate".into(), moved, more }));
        assert_eq!(redriven(0, false), "– the handler gate has no dead letters\n");
        assert_eq!(redriven(1, false), "✓ moved 1 dead letter back to the queue of gate\n");
        assert!(redriven(100, true).ends_with("  more may be left: nofx queues redrive gate\n"));
    }
}
