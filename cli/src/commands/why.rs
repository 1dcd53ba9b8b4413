//! `nofx why`: what a run or a step waits for, or why it failed.

use std::fmt::Write;
use std::time::SystemTime;

use anyhow::Result;
use nofx_local::report::printable;
use shared::domain::{GateStatus, RunId, RunStatus, StepStatus};
use shared::http::encoded;
use shared::view::{Gate, Run, RunDetail, Step, StepWhy, WaitingGate};

use crate::client::api::Api;
use crate::client::resolve;
use crate::commands::evidence::findings;
use crate::output::color::{BAD, BOLD, DIM, command, paint};
use crate::output::{self, Format, count, printable_lines, shell_word, state, time};

/// How many steps of a run are explained.
const SHOWN: usize = 8;
/// Maximum number of lines of an error. `nofx show` has all of them.
const MAX_LINES: usize = 12;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The run: its id, the beginning or end of its id, or `last`
    run: String,
    /// Name of a step [default: the steps that hold the run]
    step: Option<String>,
    #[command(flatten)]
    format: Format,
}

/// Explains a step, or a run by the steps that hold it. The document of a run is a list of its explained steps.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let run = resolve::run(api, &args.run).await?;
    if let Some(name) = &args.step {
        let why = match explain(api, run, name).await {
            Ok(why) => why,
            Err(error) => return Err(resolve::suggest_step(api, run, name, error).await),
        };
        if args.format.json {
            return output::json(&why);
        }
        let found = found(api, &why).await?;
        return output::text(step_text(run, &why, &found));
    }
    let detail = api.whole_run(&run.to_string()).await?;
    let holding = holding(&detail);
    let mut explained = Vec::new();
    for step in holding.iter().take(SHOWN) {
        explained.push(explain(api, run, &step.name).await?);
    }
    if args.format.json {
        return output::json(&explained);
    }
    let gates = api.gates(&run.to_string()).await?;
    let mut text = run_text(&detail, &gates, SystemTime::now());
    for why in &explained {
        text.push('\n');
        text.push_str(&step_text(run, why, &found(api, why).await?));
    }
    if holding.len() > SHOWN {
        let more = count(holding.len() - SHOWN, "more step");
        let _ = writeln!(text, "\nand {more}: {}", command(format!("nofx show {run}")));
    }
    text.push_str(&next(&detail.run));
    output::text(text)
}

async fn explain(api: &Api, run: RunId, step: &str) -> Result<StepWhy> {
    api.get(&format!("/runs/{run}/steps/{}/why", encoded(step))).await
}

/// The first findings of the gates that failed on their evidence.
async fn found(api: &Api, why: &StepWhy) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for gate in why.gates.iter().filter(|gate| gate.status == GateStatus::Failed) {
        lines.extend(findings(api, &gate.id.to_string()).await?);
    }
    Ok(lines)
}

/// The steps that hold a run: those that failed, else those that wait for a person, else those that are open.
fn holding(detail: &RunDetail) -> Vec<&Step> {
    let of = |statuses: &[StepStatus]| -> Vec<&Step> {
        detail.steps.iter().filter(|step| statuses.contains(&step.status)).collect()
    };
    match detail.run.status {
        RunStatus::Succeeded | RunStatus::Cancelled => Vec::new(),
        RunStatus::Failed => of(&[StepStatus::Failed]),
        RunStatus::Blocked => of(&[StepStatus::Blocked]),
        RunStatus::Queued | RunStatus::Running | RunStatus::Paused => {
            of(&[StepStatus::Blocked, StepStatus::Running, StepStatus::Ready])
        }
    }
}

fn run_text(detail: &RunDetail, gates: &[Gate], now: SystemTime) -> String {
    let run = &detail.run;
    let mut text = format!("{}  {}\n", state::run(run.status).painted(), paint(BOLD, printable(&run.goal)));
    let _ = writeln!(text, "{}", sentence(detail, now));
    if let Some(failure) = &run.failure {
        for line in printable_lines(&failure.message).take(MAX_LINES) {
            let _ = writeln!(text, "  {}", paint(BAD, line));
        }
    }
    for gate in gates.iter().filter(|gate| gate.status == GateStatus::Pending && gate.step_id.is_none()) {
        let reason = gate.reason.as_deref();
        text.push_str(&asked(&gate.id.to_string(), &gate.gate_type, reason));
    }
    text
}

/// Where the run stands.
fn sentence(detail: &RunDetail, now: SystemTime) -> String {
    let run = &detail.run;
    let in_state = |status: StepStatus| detail.steps.iter().filter(|step| step.status == status).count();
    let done = format!("{} of {} succeeded", in_state(StepStatus::Succeeded), count(detail.steps.len(), "step"));
    let ended = || run.finished_at.as_ref().map_or_else(String::new, |at| format!(" {}", time::ago(at, now)));
    match run.status {
        RunStatus::Queued => format!("No step has begun; {} ready for a worker.", are(in_state(StepStatus::Ready))),
        RunStatus::Running => format!("{done}; {} running.", are(in_state(StepStatus::Running))),
        RunStatus::Blocked => format!("{done}. No step can go on before a person decides."),
        RunStatus::Paused => match run.paused_at.as_ref() {
            Some(at) => format!("{done}. It was paused {}; no step starts until it is resumed.", time::ago(at, now)),
            None => format!("{done}. It is paused; no step starts until it is resumed."),
        },
        RunStatus::Succeeded => format!("It waits for nothing: it succeeded{}.", ended()),
        RunStatus::Failed => match in_state(StepStatus::Skipped) {
            0 => format!("It failed{}; {done}.", ended()),
            skipped => format!("It failed{}; {done}, {skipped} {} skipped.", ended(), was(skipped)),
        },
        RunStatus::Cancelled => format!("It was cancelled{}; {done}.", ended()),
    }
}

fn are(steps: usize) -> String {
    format!("{} {}", count(steps, "step"), if steps == 1 { "is" } else { "are" })
}

fn was(steps: usize) -> &'static str {
    if steps == 1 { "was" } else { "were" }
}

/// A step, why it is where it is, and what to do.
fn step_text(run: RunId, why: &StepWhy, findings: &[String]) -> String {
    let mut text = format!("{}  {}  ", state::step(why.status).painted(), paint(BOLD, printable(&why.name)));
    let _ = writeln!(text, "{}", paint(DIM, facts(why)));
    for line in printable_lines(&why.why).take(MAX_LINES) {
        let _ = writeln!(text, "  {line}");
    }
    for finding in findings {
        let _ = writeln!(text, "    {}", printable(finding));
    }
    for WaitingGate { id, gate_type, reason, .. } in why.gates.iter().filter(|gate| gate.status == GateStatus::Pending)
    {
        text.push_str(&asked(&id.to_string(), gate_type, reason.as_deref()));
    }
    let step = shell_word(&why.name);
    let next = match why.status {
        StepStatus::Failed | StepStatus::Running => format!("nofx logs {run} {step}"),
        StepStatus::Skipped => format!("nofx why {run}"),
        StepStatus::Ready if why.run_status == RunStatus::Paused => format!("nofx resume {run}"),
        _ => return text,
    };
    let _ = writeln!(text, "  {} {}", paint(DIM, "next:"), command(next));
    text
}

fn facts(why: &StepWhy) -> String {
    let mut facts = vec![printable(&why.tool)];
    if why.attempt > 0 {
        facts.push(format!("attempt {}", why.attempt));
    }
    if why.failures > 0 {
        facts.push(format!("{} of {} attempts failed", why.failures, why.max_attempts));
    }
    if why.workers_lost > 0 {
        facts.push(count(why.workers_lost as usize, "lost worker"));
    }
    if why.notify_count > 0 && why.status == StepStatus::Ready {
        facts.push(format!("woken {} times again", why.notify_count));
    }
    facts.join("  ")
}

/// A gate that a person decides, and the command that approves it.
fn asked(id: &str, gate_type: &str, reason: Option<&str>) -> String {
    let mut text = format!("  {} {}\n", state::gate(GateStatus::Pending).mark(), printable(gate_type));
    for line in printable_lines(reason.unwrap_or_default()).take(MAX_LINES) {
        let _ = writeln!(text, "    {}", paint(DIM, format_args!("│ {line}")));
    }
    let _ = writeln!(text, "    {} {}", paint(DIM, "next:"), command(format!("nofx approve {id}")));
    text
}

/// What can be done with the whole run.
fn next(run: &Run) -> String {
    let id = run.id;
    let words = match run.status {
        RunStatus::Paused => format!("nofx resume {id}"),
        RunStatus::Failed | RunStatus::Cancelled => format!("nofx retry {id}"),
        _ => return String::new(),
    };
    format!("\n{} {}\n", paint(DIM, "next:"), command(words))
}
