//! `nofx watch`: prints a run's events until it ends.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::Result;
use nofx_local::report::printable;
use serde_json::Value;
use shared::domain::{GateStatus, RunStatus, StepStatus};
use shared::view::{Event, RunDetail};
use tokio::time::sleep;

use crate::client::api::{Api, Polled, timeline_path};
use crate::commands::evidence::print_evidence;

/// Maximum number of lines of an explanation. The evidence has all of it.
const EXPLANATION_LINES: usize = 12;
/// Fields that are not printed.
const HIDDEN: [&str; 2] = ["hash", "plan_digest"];
const POLL_PERIOD: Duration = Duration::from_millis(300);
/// Maximum number of failed requests in a row. The API may restart, for a rebuild or a deployment.
const FAILURES_MAX: u32 = 40;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Id of the run, as `nofx submit` and `nofx runs` print it
    pub run_id: String,
}

/// `nofx watch`: prints events, and gates that need a decision, until the run ends. True if the run succeeded.
pub async fn watch(api: &Api, run_id: &str) -> Result<bool> {
    let printed = RefCell::new(None);
    let detail = follow(api, run_id, async |detail| {
        let blocked = blocked_steps(detail);
        if printed.borrow().as_ref() != Some(&blocked) && print_pending_gates(api, run_id).await.is_ok() {
            printed.replace(Some(blocked));
        }
        Ok(())
    })
    .await?;
    println!("{} {}", detail.run.id, detail.run.status);
    Ok(detail.run.status == RunStatus::Succeeded)
}

/// Prints the events of a run until it ends. Calls `on_blocked` while the run is blocked.
pub async fn follow(api: &Api, run_id: &str, on_blocked: impl AsyncFn(&RunDetail) -> Result<()>) -> Result<RunDetail> {
    let mut run: Polled<RunDetail> = Polled::new(format!("/runs/{run_id}"));
    let mut page: Polled<Vec<Event>> = Polled::new(timeline_path(run_id, 0));
    let mut has_printed = false;
    let mut failures = 0;
    loop {
        // Read the state first, so that events between the two reads are printed before the end is reported.
        let (detail, events) = match poll(api, &mut run, &mut page).await {
            Ok(answers) => answers,
            Err(error) if failures == FAILURES_MAX || !has_printed => return Err(error),
            Err(_) => {
                failures += 1;
                sleep(POLL_PERIOD).await;
                continue;
            }
        };
        failures = 0;
        for event in events {
            print_event(event);
            if let Some(gate) = judged_gate(event)
                && let Err(error) = print_evidence(api, &gate).await
            {
                println!("                  the evidence cannot be shown: {}", printable(&error.to_string()));
            }
        }
        let last = events.last().map(|event| event.seq);
        match detail.run.status {
            status if status.is_terminal() && last.is_none() => return api.whole_run(run_id).await,
            RunStatus::Blocked => on_blocked(detail).await?,
            _ => {}
        }
        if let Some(seq) = last {
            has_printed = true;
            page = Polled::new(timeline_path(run_id, seq));
        } else {
            sleep(POLL_PERIOD).await;
        }
    }
}

fn blocked_steps(detail: &RunDetail) -> Vec<String> {
    detail.steps.iter().filter(|step| step.status == StepStatus::Blocked).map(|step| step.name.clone()).collect()
}

/// Prints the gates that the run waits for, with the commands that decide them.
async fn print_pending_gates(api: &Api, run_id: &str) -> Result<()> {
    for gate in api.gates(run_id).await?.iter().filter(|gate| gate.status == GateStatus::Pending) {
        let (kind, id) = (printable(&gate.gate_type), gate.id);
        println!("  the gate {kind} waits for a decision: nofx approve {id}, or nofx reject {id}");
    }
    Ok(())
}

async fn poll<'a>(
    api: &Api,
    run: &'a mut Polled<RunDetail>,
    page: &'a mut Polled<Vec<Event>>,
) -> Result<(&'a RunDetail, &'a Vec<Event>)> {
    let detail = api.poll(run).await?;
    Ok((detail, api.poll(page).await?))
}

/// The gate whose handler judged it. A gate that a person decided has a decision, and no findings.
fn judged_gate(event: &Event) -> Option<String> {
    let is_verdict = matches!(event.kind.as_str(), "gate.passed" | "gate.failed");
    let payload: Value = serde_json::from_str(event.payload.get()).ok().filter(|_| is_verdict)?;
    let is_judged = payload["decision"].is_null() && payload["subject"]["evidence"].is_string();
    payload["gate_id"].as_str().filter(|_| is_judged).map(str::to_owned)
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
