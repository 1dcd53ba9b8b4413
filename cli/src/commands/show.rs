//! `nofx show`: a run with its steps, or one step.

use std::fmt::Write;
use std::time::SystemTime;

use anyhow::Result;
use nofx_local::report::printable;
use serde_json::value::RawValue;
use shared::domain::budget_gate::WaitsFor;
use shared::domain::{GateStatus, MicroUsd, StepStatus};
use shared::view::{ArtifactSummary, Failure, Gate, Run, RunDetail, Step};

use crate::client::api::Api;
use crate::client::resolve;
use crate::commands::artifacts::size;
use crate::output::color::{BOLD, DIM, WAIT, command, paint};
use crate::output::next::{self, Known};
use crate::output::table::{self, Table, cell, styled};
use crate::output::{self, Format, count, printable_lines, state, time};

/// How many lines of an error or a value are printed.
const MAX_LINES: usize = 40;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The run: its id, the beginning or end of its id, or `last`
    run: String,
    /// Name of a step: show its inputs, outputs and error
    step: Option<String>,
    #[command(flatten)]
    format: Format,
}

pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let id = resolve::run(api, &args.run).await?;
    let now = SystemTime::now();
    if let Some(name) = &args.step {
        let step = resolve::step(api, id, name).await?;
        if args.format.json {
            return output::json(&step);
        }
        let stored = api.whole_run(&id.to_string()).await?.artifacts;
        let stored: Vec<_> = stored.into_iter().filter(|artifact| artifact.step_id == Some(step.id)).collect();
        return output::text(step_text(&step, &stored, now));
    }
    let detail = api.whole_run(&id.to_string()).await?;
    if args.format.json {
        return output::json(&detail);
    }
    let gates = api.gates(&id.to_string()).await?;
    output::text(run_text(&detail, &gates, now))
}

fn run_text(detail: &RunDetail, gates: &[Gate], now: SystemTime) -> String {
    let run = &detail.run;
    let mut text = format!("{}  {}\n", state::run(run.status).painted(), paint(BOLD, printable(&run.goal)));
    let by = run.created_by.as_deref().map(|by| format!(" by {}", printable(by))).unwrap_or_default();
    let mut facts = vec![run.id.to_string(), format!("created {}{by}", time::ago(&run.created_at, now))];
    if let Some(took) = time::between(run.started_at.as_ref(), run.finished_at.as_ref(), now) {
        let verb = if run.finished_at.is_some() { "took" } else { "for" };
        facts.push(format!("{verb} {}", time::span(took)));
    }
    facts.extend(money(run));
    if run.generation > 1 {
        facts.push(format!("generation {}", run.generation));
    }
    let _ = writeln!(text, "{}", paint(DIM, facts.join("  ")));
    let _ = writeln!(text, "{}", next::lead(&Known { detail, gates, explained: &[] }, now));
    text.push_str(&failure(run.failure.as_ref()));
    let _ = write!(text, "\n{}", steps(&detail.steps, now));
    if !detail.artifacts.is_empty() {
        let list = command(format!("nofx artifacts {}", run.id));
        let _ = writeln!(text, "\n{}: {list}", count(detail.artifacts.len(), "artifact"));
    }
    for gate in gates.iter().filter(|gate| gate.status == GateStatus::Pending) {
        let kind = paint(WAIT, format_args!("◆ {}", printable(&gate.gate_type)));
        if time::is_over(gate.expires_at.as_ref(), now) {
            let _ = writeln!(text, "\n{kind}: its time is over, and nobody can decide it any more");
            continue;
        }
        if let Some(help) = WaitsFor::of(&gate.gate_type, gate.subject.as_ref()).and_then(WaitsFor::by_itself) {
            let _ = writeln!(text, "\n{kind} waits for money: it {help}");
            continue;
        }
        let _ = writeln!(text, "\n{kind} waits for a decision: {}", command(format!("nofx approve {}", gate.id)));
    }
    text
}

/// What its model calls have cost. None of a run that called no model and has no budget.
fn money(run: &Run) -> Option<String> {
    let Run { budget_usd_micros, spent_usd_micros: spent, reserved_usd_micros: reserved, .. } = run;
    if budget_usd_micros.is_none() && *spent + *reserved == MicroUsd::ZERO {
        return None;
    }
    let of = budget_usd_micros.map(|budget| format!(" of {budget}")).unwrap_or_default();
    let in_flight = if *reserved > MicroUsd::ZERO { format!(", {reserved} reserved") } else { String::new() };
    Some(format!("models cost {spent}{of}{in_flight}"))
}

fn steps(steps: &[Step], now: SystemTime) -> Table {
    let mut table = Table::new(&["STATE", "STEP", "TOOL", "TOOK", "TRIES", ""]).whole(&[0, 3, 4]).right(3).right(4);
    for step in steps {
        let took = time::between(step.started_at.as_ref(), step.finished_at.as_ref(), now);
        let note = match (step.status, &step.error) {
            (_, Some(error)) => {
                styled(error.message.lines().next().unwrap_or_default(), state::step(step.status).style)
            }
            (StepStatus::Pending, None) if !step.depends_on.is_empty() => {
                styled(format!("after {}", step.depends_on.join(", ")), DIM)
            }
            _ => cell(""),
        };
        table.row(vec![
            table::state(state::step(step.status)),
            cell(&step.name),
            styled(&step.tool, DIM),
            cell(took.map(time::span).unwrap_or_default()),
            cell(if step.attempt > 1 { step.attempt.to_string() } else { String::new() }),
            note,
        ]);
    }
    table
}

fn step_text(step: &Step, stored: &[ArtifactSummary], now: SystemTime) -> String {
    let mut text = format!("{}  {}  ", state::step(step.status).painted(), paint(BOLD, printable(&step.name)));
    let mut facts = vec![printable(&step.tool)];
    if step.attempt > 0 {
        facts.push(format!("attempt {}", step.attempt));
    }
    facts.extend(step.cost_usd_micros.map(|cost| format!("models cost {cost}")));
    if let Some(took) = time::between(step.started_at.as_ref(), step.finished_at.as_ref(), now) {
        facts.push(time::span(took));
    }
    if !step.depends_on.is_empty() {
        facts.push(format!("after {}", printable(&step.depends_on.join(", "))));
    }
    let _ = writeln!(text, "{}", paint(DIM, facts.join("  ")));
    text.push_str(&failure(step.error.as_ref()));
    for (title, value) in [("inputs", &step.inputs), ("outputs", &step.outputs)] {
        if let Some(value) = value {
            let _ = write!(text, "\n{}\n{}", paint(DIM, title), indented_json(value));
        }
    }
    if !stored.is_empty() {
        let _ = writeln!(text, "\n{}", paint(DIM, "artifacts"));
        for artifact in stored {
            let (id, name) = (artifact.id, printable(&artifact.name));
            let _ = writeln!(text, "  {id}  {name}  {}", paint(DIM, size(artifact.size_bytes)));
        }
    }
    text
}

/// The code and the message of a failure.
fn failure(failure: Option<&Failure>) -> String {
    let Some(failure) = failure else { return String::new() };
    let style = state::step(StepStatus::Failed).style;
    let mut text = format!("\n{}\n", paint(style, printable(&failure.code)));
    for line in printable_lines(&failure.message).take(MAX_LINES) {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// JSON with an indent. Long values are cut: `--json` has all of them.
fn indented_json(value: &RawValue) -> String {
    let value: serde_json::Value = serde_json::from_str(value.get()).unwrap_or_default();
    let shown = serde_json::to_string_pretty(&value).unwrap_or_default();
    let mut text = String::new();
    for line in printable_lines(&shown).take(MAX_LINES) {
        let _ = writeln!(text, "  {line}");
    }
    let more = shown.lines().count().saturating_sub(MAX_LINES);
    if more > 0 {
        let _ = writeln!(text, "  {}", paint(DIM, format_args!("and {more} more lines; --json prints all of them")));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::output::time::parse;

    const RUN: &str = "0193c0de-0000-7000-8000-000000000001";

    fn step(name: &str, status: &str, more: &Value) -> Value {
        let mut step = json!({
            "id": "0193c0de-0000-7000-8000-000000000002", "name": name, "tool": "gate:lint", "status": status,
            "inputs": {}, "outputs": null, "error": null, "attempt": 1, "blockers": 0, "depends_on": [],
            "ready_at": null, "started_at": null, "finished_at": null,
        });
        step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        step
    }

    fn detail() -> RunDetail {
        let started =
            json!({"started_at": "2026-11-23T10:00:00+00:00", "finished_at": "2026-11-23T10:00:01.250000+00:00"});
        let mut failed = started.clone();
        failed["error"] = json!({"code": "gate_failed", "message": "3 problems\n\u{1b}[2Jsrc/a.ts:1"});
        failed["attempt"] = json!(2);
        serde_json::from_value(json!({
            "run": {
                "id": RUN, "status": "failed", "goal": "gated\ncodegen", "plan": null, "plan_digest": "a", "generation": 2,
                "failure": null, "timeout_s": null, "deadline_at": null, "created_by": "ann", "created_at": "2026-11-23T10:00:00+00:00",
                "started_at": "2026-11-23T10:00:00+00:00", "paused_at": null,
                "finished_at": "2026-11-23T10:03:20+00:00",
            },
            "steps": [
                step("typecheck", "succeeded", &started), step("lint", "failed", &failed),
                step("readme", "pending", &json!({"attempt": 0, "depends_on": ["typecheck", "lint"]})),
            ],
            "artifacts": [],
        }))
        .unwrap()
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_run_is_its_facts_and_a_line_for_each_step() {
        let now = parse("2026-11-23T10:05:00Z").unwrap();
        let expected = "\
✗ failed  gated\\u{a}codegen
0193c0de-0000-7000-8000-000000000001  created 5 min ago by ann  took 3 min 20 s  generation 2
Failed at lint

STATE        STEP       TOOL        TOOK  TRIES
✓ succeeded  typecheck  gate:lint  1.2 s
✗ failed     lint       gate:lint  1.2 s      2  3 problems
○ pending    readme     gate:lint                after typecheck, lint
";
        assert_eq!(plain(&run_text(&detail(), &[], now)), expected);
    }

    #[test]
    fn a_step_has_its_error_inputs_and_outputs() {
        let step = &detail().steps[1];
        let text = plain(&step_text(step, &[], parse("2026-11-23T10:05:00Z").unwrap()));
        let expected = "✗ failed  lint  gate:lint  attempt 2  1.2 s\n\ngate_failed\n  3 problems\n  \\u{1b}[2Jsrc/a.ts:1\n\n\
                        inputs\n  {}\n";
        assert_eq!(text, expected);
        let long = RawValue::from_string(json!((0..100).collect::<Vec<_>>()).to_string()).unwrap();
        assert!(plain(&indented_json(&long)).ends_with("  and 62 more lines; --json prints all of them\n"));
    }
}
