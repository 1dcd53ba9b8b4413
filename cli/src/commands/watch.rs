//! `nofx watch`: what happens to a run, until it ends.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::Result;
use nofx_local::report::printable;
use serde_json::Value;
use shared::domain::{GateStatus, RunStatus, StepStatus};
use shared::view::{Event, RunDetail};
use tokio::time::sleep;

use crate::client::api::{Api, Polled, timeline};

/// Lines of an explanation that are shown; the evidence has the rest.
const EXPLANATION_LINES: usize = 12;
/// Fields that nobody reads off a terminal.
const UNREAD: [&str; 2] = ["hash", "plan_digest"];
const LOOK_PERIOD: Duration = Duration::from_millis(300);
/// An API that restarts (a rebuild, a deployment) is waited for this many times in a row.
const FAILURES_MAX: u32 = 40;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Id of the run, as `nofx submit` and `nofx runs` print it
    pub run_id: String,
}

/// `nofx watch`: prints events until the run ends, and what it waits for; true if it succeeded.
pub async fn watch(api: &Api, run_id: &str) -> Result<bool> {
    let told = RefCell::new(None);
    let detail = follow(api, run_id, async |detail| {
        let blocked = blocked_steps(detail);
        if told.borrow().as_ref() != Some(&blocked) && print_pending_gates(api, run_id).await.is_ok() {
            told.replace(Some(blocked));
        }
        Ok(())
    })
    .await?;
    println!("{} {}", detail.run.id, detail.run.status);
    Ok(detail.run.status == RunStatus::Succeeded)
}

/// Prints the events of a run until it ends, and shows `on_blocked` each state in which it waits for somebody.
pub async fn follow(api: &Api, run_id: &str, on_blocked: impl AsyncFn(&RunDetail) -> Result<()>) -> Result<RunDetail> {
    let mut run: Polled<RunDetail> = Polled::of(format!("/runs/{run_id}"));
    let mut page: Polled<Vec<Event>> = Polled::of(timeline(run_id, 0));
    let mut has_printed = false;
    let mut failures = 0;
    loop {
        // The state first: events that come between the two reads are printed before the end is believed.
        let (detail, events) = match look(api, &mut run, &mut page).await {
            Ok(seen) => seen,
            Err(error) if failures == FAILURES_MAX || !has_printed => return Err(error),
            Err(_) => {
                failures += 1;
                sleep(LOOK_PERIOD).await;
                continue;
            }
        };
        failures = 0;
        events.iter().for_each(print_event);
        let last = events.last().map(|event| event.seq);
        match detail.run.status {
            status if status.is_terminal() && last.is_none() => return api.whole_run(run_id).await,
            RunStatus::Blocked => on_blocked(detail).await?,
            _ => {}
        }
        if let Some(seq) = last {
            has_printed = true;
            page = Polled::of(timeline(run_id, seq));
        } else {
            sleep(LOOK_PERIOD).await;
        }
    }
}

fn blocked_steps(detail: &RunDetail) -> Vec<String> {
    detail.steps.iter().filter(|step| step.status == StepStatus::Blocked).map(|step| step.name.clone()).collect()
}

/// What the run waits for, and the command that decides it.
async fn print_pending_gates(api: &Api, run_id: &str) -> Result<()> {
    for gate in api.gates(run_id).await?.iter().filter(|gate| gate.status == GateStatus::Pending) {
        let (kind, id) = (printable(&gate.gate_type), gate.id);
        println!("  the gate {kind} waits for a decision: nofx approve {id}, or nofx reject {id}");
    }
    Ok(())
}

async fn look<'a>(
    api: &Api,
    run: &'a mut Polled<RunDetail>,
    page: &'a mut Polled<Vec<Event>>,
) -> Result<(&'a RunDetail, &'a Vec<Event>)> {
    let detail = api.poll(run).await?;
    Ok((detail, api.poll(page).await?))
}

fn print_event(event: &Event) {
    let time = event.timestamp.0.split_once('T').map_or(event.timestamp.0.as_str(), |(_, time)| time);
    let time = time.get(..12).unwrap_or(time);
    let (time, kind) = (printable(time), printable(&event.kind));
    let step = printable(event.step.as_deref().unwrap_or_default());
    let payload = serde_json::from_str(event.payload.get()).unwrap_or_default();
    println!("  {time}  {kind:<24} {step:<20} {}", printable(&summary(&payload)));
    for line in explanation(&payload).lines().take(EXPLANATION_LINES) {
        println!("                  {}", printable(line));
    }
}

/// Why a step failed, or what a gate says in more than a line.
fn explanation(payload: &Value) -> &str {
    let error = payload["error"]["message"].as_str();
    error.or_else(|| payload["reason"].as_str().filter(|reason| reason.contains('\n'))).unwrap_or_default()
}

/// What of a payload fits on the line: short values, no nesting.
fn summary(payload: &Value) -> String {
    let Some(fields) = payload.as_object() else { return String::new() };
    let mut words: Vec<String> = Vec::new();
    for (name, value) in fields.iter().filter(|(name, _)| !UNREAD.contains(&name.as_str())) {
        let text = match value {
            Value::String(text) => text.lines().next().unwrap_or_default().chars().take(100).collect(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => continue,
        };
        words.push(format!("{name}={text}"));
    }
    words.join(" ")
}
