//! `nofx watch`: follows a run until it ends.

use std::env;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use nofx_local::report::printable;
use serde_json::Value;
use shared::domain::{RunId, RunStatus};
use shared::view::{Event, RunDetail};
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::api::{Api, Polled, timeline_path};
use crate::client::resolve;
use crate::commands::evidence::findings;
use crate::output::board::Board;
use crate::output::color::{DIM, WAIT, command, paint};
use crate::output::error::{BLOCKED, FAILED, INTERRUPTED};
use crate::output::live::Live;
use crate::output::{self, Format, frame};

/// From one request to the next while something happens.
const POLL_PERIOD: Duration = Duration::from_millis(300);
/// The same while nothing happens.
const MAX_POLL_PERIOD: Duration = Duration::from_secs(2);
/// From one picture of the spinner to the next.
const FRAME_PERIOD: Duration = Duration::from_millis(100);
/// Maximum number of failed requests in a row. The API may restart, for a rebuild or a deployment.
const FAILURES_MAX: u32 = 40;
/// Maximum number of lines of an explanation. The evidence has all of it.
const EXPLANATION_LINES: usize = 12;
/// Fields that are not printed.
const HIDDEN: [&str; 2] = ["hash", "plan_digest"];

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The run: its id, the beginning or end of its id, or `last`
    run: String,
    #[command(flatten)]
    follow: Follow,
    #[command(flatten)]
    format: Format,
}

/// How a run is followed.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Follow {
    /// Print a line for each event, as in a pipe or with CI set, instead of live lines
    #[arg(long)]
    plain: bool,
    /// Stop with exit code 4 as soon as the run waits for a decision
    #[arg(long)]
    exit_when_blocked: bool,
}

/// How the watch ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Run(RunStatus),
    Blocked,
}

pub async fn run(api: &Api, args: &Args) -> Result<ExitCode> {
    let run = resolve::run(api, &args.run).await?;
    follow_to_the_end(api, run, args.follow, args.format).await
}

/// Follows a run until it ends or Ctrl-C. The exit code says how it ended.
pub async fn follow_to_the_end(api: &Api, run: RunId, follow: Follow, format: Format) -> Result<ExitCode> {
    let mut watcher = Watcher::start(api, run, Printer::of(follow, format)).await?;
    let ended = tokio::select! {
        ended = watcher.follow(follow.exit_when_blocked, async |_| Ok(())) => Some(ended),
        _ = tokio::signal::ctrl_c() => None,
    };
    watcher.printer.end();
    let Some(ended) = ended else {
        let cancel = command(format!("nofx cancel {run}"));
        output::note(format_args!(
            "the run goes on; follow it with {}, or {cancel}",
            command(format!("nofx watch {run}"))
        ));
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let ended = ended?;
    if !format.json {
        watcher.print_end(&ended)?;
    }
    Ok(match ended {
        End::Run(RunStatus::Succeeded) => ExitCode::SUCCESS,
        End::Run(_) => ExitCode::from(FAILED),
        End::Blocked => ExitCode::from(BLOCKED),
    })
}

/// Prints the events of a run until it ends. Calls `on_blocked` when the run is blocked and nothing more happened.
pub async fn follow(api: &Api, run: RunId, on_blocked: impl AsyncFn(&Board) -> Result<()>) -> Result<RunDetail> {
    let mut watcher = Watcher::start(api, run, Printer::Plain).await?;
    watcher.follow(false, on_blocked).await?;
    api.whole_run(&run.to_string()).await
}

/// Where events go.
enum Printer {
    Plain,
    Json,
    Live(Live),
}

impl Printer {
    fn of(follow: Follow, format: Format) -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        if format.json {
            Self::Json
        } else if follow.plain || is_set("CI") || is_dumb || !std::io::stdout().is_terminal() {
            Self::Plain
        } else {
            Self::Live(Live::start())
        }
    }

    fn end(&self) {
        if let Self::Live(live) = self {
            live.end();
        }
    }
}

struct Watcher<'a> {
    api: &'a Api,
    run: RunId,
    board: Board,
    printer: Printer,
    tick: usize,
}

impl<'a> Watcher<'a> {
    async fn start(api: &'a Api, run: RunId, printer: Printer) -> Result<Self> {
        let board = Board::new(&api.whole_run(&run.to_string()).await?);
        Ok(Self { api, run, board, printer, tick: 0 })
    }

    async fn follow(
        &mut self,
        stops_when_blocked: bool,
        on_blocked: impl AsyncFn(&Board) -> Result<()>,
    ) -> Result<End> {
        let run = self.run.to_string();
        let mut page: Polled<Vec<Event>> = Polled::new(timeline_path(&run, 0));
        let (mut period, mut failures) = (POLL_PERIOD, 0);
        loop {
            let events = match self.api.poll(&mut page).await {
                Ok(events) => events,
                Err(error) if failures == FAILURES_MAX || self.board.status == RunStatus::Queued => return Err(error),
                Err(_) => {
                    failures += 1;
                    self.wait(POLL_PERIOD).await;
                    continue;
                }
            };
            failures = 0;
            for event in events {
                self.print(event).await?;
            }
            if let Some(last) = events.last() {
                // Sequence numbers have no gaps, so nothing is missed.
                page = Polled::new(timeline_path(&run, last.seq));
                period = POLL_PERIOD;
                continue;
            }
            if self.board.status.is_terminal() {
                return Ok(End::Run(self.board.status));
            }
            if frame::needs_decision(&self.board) && stops_when_blocked {
                return Ok(End::Blocked);
            }
            if self.board.status == RunStatus::Blocked {
                on_blocked(&self.board).await?;
            }
            self.wait(period).await;
            period = (period * 5 / 4).min(MAX_POLL_PERIOD);
        }
    }

    /// Waits, while the spinner turns.
    async fn wait(&mut self, period: Duration) {
        let Printer::Live(live) = &mut self.printer else { return sleep(period).await };
        let end = Instant::now() + period;
        loop {
            self.tick += 1;
            live.draw(&frame::live(&self.board, SystemTime::now(), self.tick, live.size()));
            let next = Instant::now() + FRAME_PERIOD;
            if next >= end {
                return sleep_until(end).await;
            }
            sleep_until(next).await;
        }
    }

    async fn print(&mut self, event: &Event) -> Result<()> {
        let ended = self.board.apply(event);
        match &self.printer {
            Printer::Json => return output::json_line(event),
            Printer::Plain => print_event(event)?,
            Printer::Live(live) => {
                if let Some(step) = ended.map(|at| &self.board.steps[at]) {
                    live.print(&frame::ended(step, frame::name_width(&self.board)));
                }
            }
        }
        let Some(gate) = judged_gate(event) else { return Ok(()) };
        let found = match findings(self.api, &gate).await {
            Ok(found) => found,
            Err(error) => vec![format!("the evidence cannot be shown: {error}")],
        };
        for finding in found {
            let text = format!("    {}", printable(&finding));
            match &self.printer {
                Printer::Live(live) => live.print(&text),
                _ => output::line(text)?,
            }
        }
        Ok(())
    }

    fn print_end(&self, end: &End) -> Result<()> {
        output::line(frame::counts(&self.board, SystemTime::now()))?;
        if !self.board.failure.is_empty() {
            output::line(format_args!("  {}", printable(&self.board.failure)))?;
        }
        for gate in &self.board.gates {
            let kind = paint(WAIT, format_args!("◆ {}", printable(&gate.kind)));
            output::line(format_args!(
                "{kind} waits for a decision: {}",
                command(format!("nofx approve {}", gate.id))
            ))?;
        }
        if *end == End::Run(RunStatus::Failed) {
            let (show, retry) = (format!("nofx show {}", self.run), format!("nofx retry {}", self.run));
            output::line(format_args!("{} {}, {}", paint(DIM, "next:"), command(show), command(retry)))?;
        }
        Ok(())
    }
}

/// The gate whose handler judged it. A gate that a person decided has a decision, and no findings.
fn judged_gate(event: &Event) -> Option<String> {
    let is_verdict = matches!(event.kind.as_str(), "gate.passed" | "gate.failed");
    let payload: Value = serde_json::from_str(event.payload.get()).ok().filter(|_| is_verdict)?;
    let is_judged = payload["decision"].is_null() && payload["subject"]["evidence"].is_string();
    payload["gate_id"].as_str().filter(|_| is_judged).map(str::to_owned)
}
fn print_event(event: &Event) -> Result<()> {
    let time = event.timestamp.0.split_once('T').map_or(event.timestamp.0.as_str(), |(_, time)| time);
    let time = time.get(..12).unwrap_or(time);
    let (time, kind) = (printable(time), printable(&event.kind));
    let step = printable(event.step.as_deref().unwrap_or_default());
    let payload = serde_json::from_str(event.payload.get()).unwrap_or_default();
    output::line(format_args!("  {time}  {kind:<24} {step:<20} {}", printable(&summary(&payload))))?;
    for line in explanation(&payload).lines().take(EXPLANATION_LINES) {
        output::line(format_args!("                  {}", printable(line)))?;
    }
    Ok(())
}

/// The message of a failed step, or the reason of a gate if it has several lines.
fn explanation(payload: &Value) -> &str {
    let error = payload["error"]["message"].as_str();
    error.or_else(|| payload["reason"].as_str().filter(|reason| reason.contains('\n'))).unwrap_or_default()
}

/// The short, unnested values of a payload, for one line.
fn summary(payload: &Value) -> String {
    let Some(fields) = payload.as_object() else { return String::new() };
    let mut words: Vec<String> = Vec::new();
    for (name, value) in fields.iter().filter(|(name, _)| !HIDDEN.contains(&name.as_str())) {
        let text = match value {
            Value::String(text) => text.lines().next().unwrap_or_default().chars().take(100).collect(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => continue,
        };
        words.push(format!("{name}={text}"));
    }
    words.join(" ")
}
