//! `nofx why`: what a run or a step waits for, or why it failed.

use std::fmt::Write;
use std::time::SystemTime;

use anyhow::Result;
use nofx_local::report::printable;
use shared::domain::budget_gate::WaitsFor;
use shared::domain::{GateStatus, RunId, RunStatus, StepStatus};
use shared::http::encoded;
use shared::view::{Gate, Run, RunDetail, Step, StepWhy, WaitingGate};

use crate::client::api::Api;
use crate::client::resolve;
use crate::commands::evidence::findings;
use crate::output::color::{BAD, BOLD, DIM, command, paint};
use crate::output::next::{self, Known};
use crate::output::{self, Format, count, printable_lines, shell_word, state};

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
    let mut text = run_text(&Known { detail: &detail, gates: &gates, explained: &explained }, SystemTime::now());
    for why in &explained {
        text.push('\n');
        text.push_str(&step_text(run, why, &found(api, why).await?));
    }
    if holding.len() > SHOWN {
        let more = count(holding.len() - SHOWN, "more step");
        let _ = writeln!(text, "\nand {more}: {}", command(format!("nofx show {run}")));
    }
    text.push_str(&what_to_do(&detail.run));
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

fn run_text(known: &Known<'_>, now: SystemTime) -> String {
    let run = &known.detail.run;
    let mut text = format!("{}  {}\n", state::run(run.status).painted(), paint(BOLD, printable(&run.goal)));
    let _ = writeln!(text, "{}", next::sentences(known, now));
    if let Some(failure) = &run.failure {
        for line in printable_lines(&failure.message).take(MAX_LINES) {
            let _ = writeln!(text, "  {}", paint(BAD, line));
        }
    }
    let of_run = |gate: &&Gate| next::is_open(gate, now) && gate.step_id.is_none();
    for gate in known.gates.iter().filter(of_run) {
        text.push_str(&asked(&gate.id.to_string(), &gate.gate_type, gate.reason.as_deref(), None));
    }
    text
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
    let is_open = |gate: &&WaitingGate| gate.status == GateStatus::Pending && !gate.is_over;
    for WaitingGate { id, gate_type, reason, subject, .. } in why.gates.iter().filter(is_open) {
        let waits_for = WaitsFor::of(gate_type, subject.as_ref());
        text.push_str(&asked(&id.to_string(), gate_type, reason.as_deref(), waits_for));
    }
    let step = shell_word(&why.name);
    let next = match why.status {
        StepStatus::Failed | StepStatus::Running if why.handler == "gate" => format!("nofx logs {run} {step}"),
        StepStatus::Failed => format!("nofx show {run} {step}"),
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

/// A gate, and the command that approves it. Without the command if nobody has to decide: the reason says what helps.
fn asked(id: &str, gate_type: &str, reason: Option<&str>, waits_for: Option<WaitsFor>) -> String {
    let mut text = format!("  {} {}\n", state::gate(GateStatus::Pending).mark(), printable(gate_type));
    for line in printable_lines(reason.unwrap_or_default()).take(MAX_LINES) {
        let _ = writeln!(text, "    {}", paint(DIM, format_args!("│ {line}")));
    }
    if waits_for.and_then(WaitsFor::by_itself).is_none() {
        let _ = writeln!(text, "    {} {}", paint(DIM, "next:"), command(format!("nofx approve {id}")));
    }
    text
}

/// What can be done with the whole run.
fn what_to_do(run: &Run) -> String {
    let id = run.id;
    let words = match run.status {
        RunStatus::Paused => format!("nofx resume {id}"),
        RunStatus::Failed | RunStatus::Cancelled => format!("nofx retry {id}"),
        _ => return String::new(),
    };
    format!("\n{} {}\n", paint(DIM, "next:"), command(words))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::output::time::parse;

    const RUN: &str = "0193c0de-0000-7000-8000-000000000001";
    const GATE: &str = "0193c0de-0000-7000-8000-00000000000a";

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    /// A run of steps, each with its state and its parents.
    fn detail(status: &str, steps: &[(&str, &str, &[&str])]) -> RunDetail {
        let step = |(at, (name, status, parents)): (usize, &(&str, &str, &[&str]))| {
            json!({
                "id": format!("0193c0de-0000-7000-8000-0000000001{at:02}"), "name": name, "tool": "gate:lint",
                "status": status, "inputs": {}, "outputs": null, "error": null, "attempt": 1, "blockers": 0,
                "depends_on": parents, "ready_at": "2026-11-23T10:00:00+00:00",
                "started_at": "2026-11-23T10:00:00+00:00", "finished_at": null,
            })
        };
        serde_json::from_value(json!({
            "run": {
                "id": RUN, "status": status, "goal": "a\ngoal", "plan": null, "plan_digest": "a", "generation": 1,
                "failure": null, "timeout_s": null, "deadline_at": null, "created_at": "2026-11-23T10:00:00+00:00",
                "started_at": "2026-11-23T10:00:00+00:00", "paused_at": null,
                "finished_at": "2026-11-23T10:02:00+00:00",
            },
            "steps": steps.iter().enumerate().map(step).collect::<Vec<_>>(), "artifacts": [],
        }))
        .unwrap()
    }

    fn explained(status: &str, more: &Value) -> StepWhy {
        let mut why = json!({
            "why": "It is what it is.", "name": "a step", "tool": "gate:lint", "handler": "gate", "status": status,
            "run_status": "running", "attempt": 2, "failures": 1, "max_attempts": 3, "workers_lost": 0, "blockers": 0,
            "error": null, "ready_at": null, "notify_count": 0, "lease_until": null, "parents": [], "gates": [],
        });
        why.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(why).unwrap()
    }

    fn gate(status: &str, reason: &str) -> Value {
        json!({"id": GATE, "gate_type": "manual:x", "status": status, "reason": reason, "expires_at": null})
    }

    fn names<'a>(steps: &[&'a Step]) -> Vec<&'a str> {
        steps.iter().map(|step| step.name.as_str()).collect()
    }

    #[test]
    fn a_run_is_explained_by_the_steps_that_hold_it() {
        let steps: [(&str, &str, &[&str]); 7] = [
            ("f", "failed", &[]),
            ("b", "blocked", &[]),
            ("u", "running", &[]),
            ("r", "ready", &[]),
            ("s", "succeeded", &[]),
            ("k", "skipped", &[]),
            ("p", "pending", &[]),
        ];
        for (status, expected) in [
            ("failed", &["f"][..]),
            ("blocked", &["b"]),
            ("running", &["b", "u", "r"]),
            ("queued", &["b", "u", "r"]),
            ("paused", &["b", "u", "r"]),
            ("succeeded", &[]),
            ("cancelled", &[]),
        ] {
            assert_eq!(names(&holding(&detail(status, &steps))), expected, "{status}");
        }
    }

    #[test]
    fn a_failed_run_says_where_and_what_a_retry_does() {
        let detail = detail("failed", &[("build", "succeeded", &[]), ("a step", "failed", &["build"])]);
        let known = Known { detail: &detail, gates: &[], explained: &[] };
        let text = plain(&run_text(&known, parse("2026-11-23T10:05:00Z").unwrap()));
        let expected = "\
✗ failed  a\\u{a}goal
Failed at a step. A retry judges the same workspace again: if the code is wrong, change it first. 1 step had succeeded; \
            a retry keeps it and runs the other step again.
";
        assert_eq!(text, expected);
        assert_eq!(plain(&what_to_do(&detail.run)), format!("\nnext: nofx retry {RUN}\n"));
    }

    #[test]
    fn a_step_has_its_findings_and_the_command_that_shows_more() {
        let run = RUN.parse().unwrap();
        let why = explained("failed", &json!({"why": "It failed:\n\u{1b}[2J", "failures": 3, "workers_lost": 1}));
        let expected = format!(
            "✗ failed  a step  gate:lint  attempt 2  3 of 3 attempts failed  1 lost worker\n  It failed:\n  \
             \\u{{1b}}[2J\n    src/a.ts:1: no\n  next: nofx logs {RUN} 'a step'\n"
        );
        assert_eq!(plain(&step_text(run, &why, &["src/a.ts:1: no".to_owned()])), expected);
        for (status, run_status, next) in [
            ("skipped", "failed", Some("nofx why")),
            ("ready", "paused", Some("nofx resume")),
            ("ready", "running", None),
            ("pending", "running", None),
            ("running", "running", None),
        ] {
            let more = json!({"run_status": run_status, "handler": "echo"});
            let text = plain(&step_text(run, &explained(status, &more), &[]));
            let shown = text.lines().find_map(|line| line.strip_prefix("  next: "));
            assert_eq!(shown, next.map(|next| format!("{next} {RUN}")).as_deref(), "{status} {run_status}");
        }
        // Only the command of a gate leaves output.
        let text = plain(&step_text(run, &explained("failed", &json!({"handler": "manual"})), &[]));
        assert!(text.ends_with(&format!("  next: nofx show {RUN} 'a step'\n")), "{text}");
    }

    #[test]
    fn a_gate_that_a_person_decides_has_its_reason_and_its_command() {
        let why = explained("blocked", &json!({"gates": [gate("pending", "may we?\nplease"), gate("passed", "no")]}));
        let text = plain(&step_text(RUN.parse().unwrap(), &why, &[]));
        let expected = format!("  ◆ manual:x\n    │ may we?\n    │ please\n    next: nofx approve {GATE}\n");
        assert!(text.ends_with(&expected), "{text}");
        let mut money = gate("pending", "It goes on by itself the next day (UTC).");
        money["gate_type"] = json!("budget");
        for (subject, asks) in [
            (json!({"scope": "day", "waits_for": "policy"}), false),
            (json!({"scope": "run", "waits_for": "reserved"}), false),
            (json!({"scope": "run", "waits_for": "approval"}), true),
        ] {
            money["subject"] = subject;
            let why = explained("blocked", &json!({"gates": [money]}));
            let text = plain(&step_text(RUN.parse().unwrap(), &why, &[]));
            assert!(text.contains("│ It goes on by itself") && text.contains("nofx approve") == asks, "{text}");
        }
    }
}
