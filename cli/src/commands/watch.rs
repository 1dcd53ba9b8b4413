//! `nofx watch`: follows a run until it ends.

use std::env;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use nofx_local::report::printable;
use serde_json::Value;
use shared::domain::budget_gate::WaitsFor;
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
use crate::output::story::Story;
use crate::output::{self, Format, frame};

/// From one request to the next while something happens.
const POLL_PERIOD: Duration = Duration::from_millis(300);
/// The same while nothing happens.
const MAX_POLL_PERIOD: Duration = Duration::from_secs(2);
/// From one picture of the spinner to the next.
const FRAME_PERIOD: Duration = Duration::from_millis(100);
/// Events that the API sends at once, unless they are large.
const PAGE: usize = 100;
/// Payloads of a page that may be cut because of its size.
const LARGE_BYTES: usize = 64 << 10;
/// Maximum number of failed requests in a row. The API may restart, for a rebuild or a deployment.
const FAILURES_MAX: u32 = 40;

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
    /// Print what happens as sentences, as in a pipe or with CI set, instead of live lines
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

    fn end(&mut self) {
        if let Self::Live(live) = self {
            live.end();
        }
    }
}

struct Watcher<'a> {
    api: &'a Api,
    run: RunId,
    board: Board,
    story: Story,
    printer: Printer,
    tick: usize,
    /// Of the column of names.
    name_width: usize,
}

impl<'a> Watcher<'a> {
    async fn start(api: &'a Api, run: RunId, printer: Printer) -> Result<Self> {
        let board = Board::new(&api.whole_run(&run.to_string()).await?);
        let name_width = frame::name_width(&board);
        Ok(Self { api, run, board, story: Story::default(), printer, tick: 0, name_width })
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
                    self.wait(POLL_PERIOD).await?;
                    continue;
                }
            };
            failures = 0;
            for transition in events.chunk_by(|one, next| one.timestamp == next.timestamp) {
                self.print(transition).await?;
            }
            if let Some(last) = events.last() {
                let at_once = is_cut(events) || self.board.status.is_terminal();
                // Sequence numbers have no gaps, so nothing is missed.
                page = Polled::new(timeline_path(&run, last.seq));
                period = POLL_PERIOD;
                if at_once {
                    self.draw();
                } else {
                    self.wait(period).await?;
                }
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
            self.wait(period).await?;
            period = (period * 5 / 4).min(MAX_POLL_PERIOD);
        }
    }

    fn draw(&mut self) {
        if let Printer::Live(live) = &mut self.printer {
            self.tick += 1;
            live.draw(&frame::live(&self.board, SystemTime::now(), self.tick, live.size()));
        }
    }

    /// Waits, while the spinner turns.
    async fn wait(&mut self, period: Duration) -> Result<()> {
        if !matches!(self.printer, Printer::Live(_)) {
            sleep(period).await;
            return Ok(output::check_reader()?);
        }
        let end = Instant::now() + period;
        loop {
            self.draw();
            let next = Instant::now() + FRAME_PERIOD;
            if next >= end {
                sleep_until(end).await;
                return Ok(());
            }
            sleep_until(next).await;
        }
    }

    /// Prints the events of a transition, then what the gates among them found.
    async fn print(&mut self, transition: &[Event]) -> Result<()> {
        for event in transition {
            let ended = self.board.apply(event);
            match &mut self.printer {
                Printer::Json => output::json_line(event)?,
                Printer::Plain => {}
                Printer::Live(live) => {
                    if let Some(step) = ended.map(|at| &self.board.steps[at]) {
                        live.print(&frame::ended(step, self.name_width));
                    }
                }
            }
        }
        match &self.printer {
            Printer::Json => return Ok(()),
            Printer::Plain => output::text(self.story.tell(transition))?,
            Printer::Live(_) => {}
        }
        for gate in transition.iter().filter_map(judged_gate) {
            let found = match findings(self.api, &gate).await {
                Ok(found) => found,
                Err(error) => vec![format!("the evidence cannot be shown: {error}")],
            };
            for finding in found {
                let text = format!("    {}", printable(&finding));
                match &mut self.printer {
                    Printer::Live(live) => live.print(&text),
                    _ => output::line(text)?,
                }
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
            if let Some(help) = gate.waits_for.and_then(WaitsFor::by_itself) {
                output::line(format_args!("{kind} waits for money: it {help}"))?;
                continue;
            }
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

/// Whether the page may be cut, so that the next events are there already: it has as many events as the API sends at
/// most, or large ones.
fn is_cut(events: &[Event]) -> bool {
    let bytes: usize = events.iter().map(|event| event.payload.get().len()).sum();
    events.len() >= PAGE || bytes >= LARGE_BYTES
}

/// The gate whose handler judged it. A gate that a person decided has a decision, and no findings.
fn judged_gate(event: &Event) -> Option<String> {
    let is_verdict = matches!(event.kind.as_str(), "gate.passed" | "gate.failed");
    let payload: Value = serde_json::from_str(event.payload.get()).ok().filter(|_| is_verdict)?;
    let is_judged = payload["decision"].is_null() && payload["subject"]["evidence"].is_string();
    payload["gate_id"].as_str().filter(|_| is_judged).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::board::samples::event;

    #[test]
    fn a_short_page_is_the_last_one_so_a_busy_run_is_not_asked_without_a_pause() {
        let small = |count| vec![event(1, None, "run.started", &json!({})); count];
        assert_eq!(i64::try_from(PAGE), Ok(shared::http::DEFAULT_LIMIT));
        assert!(!is_cut(&small(1)) && !is_cut(&small(PAGE - 1)) && is_cut(&small(PAGE)));
        let large = event(1, None, "step.failed", &json!({"message": "x".repeat(LARGE_BYTES)}));
        assert!(is_cut(&[large]));
    }
}
