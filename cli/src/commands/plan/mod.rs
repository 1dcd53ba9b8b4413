//! `nofx plan`: checks plans, and prints their schema.

mod graph;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::Subcommand;
use nofx_local::report::printable;
use shared::domain::plan::{self, Limits, Plan};
use shared::domain::plan_schema;
use shared::view::{CheckedStep, PlanChecked};

use crate::client::api::Api;
use crate::client::plan_file;
use crate::output::{self, Format};

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Ask the API whether it would accept a plan, and print its steps in the order in which they can start
    Check {
        /// File with the plan, as JSON or YAML (.yaml, .yml); - reads standard input
        file: PathBuf,
        #[command(flatten)]
        format: Format,
    },
    /// Draw the graph of a plan, without an API
    #[command(mut_arg("json", |json| json.conflicts_with("format")))]
    Graph {
        /// File with the plan, as JSON or YAML (.yaml, .yml); - reads standard input
        file: PathBuf,
        /// How to draw it
        #[arg(long, value_enum, default_value_t)]
        format: graph::Drawing,
        #[command(flatten)]
        output: Format,
    },
    /// Print the JSON Schema of plans, for editors and for programs that write plans
    Schema,
}

/// `nofx plan`.
pub async fn run(profile: Option<&str>, command: &Command) -> Result<()> {
    match command {
        Command::Check { file, format } => check(&Api::connect(profile).await?, file, *format).await,
        Command::Graph { file, output, .. } if output.json => output::json(&PlanChecked::from(&read(file)?)),
        Command::Graph { file, format, .. } => output::text(graph::draw(&read(file)?, *format)),
        Command::Schema => output::text(schema()),
    }
}

/// Asks the API, because only it knows the limits of the deployment and whether a workspace exists.
pub async fn check(api: &Api, file: &Path, format: Format) -> Result<()> {
    let document = plan_file::read(file)?;
    let checked = api.post("/plans/check", &document.value).await;
    let plan: PlanChecked = checked.map_err(|error| document.located("", error))?;
    if format.json { output::json(&plan) } else { output::text(shown(plan)) }
}

/// Reads and checks a plan as the API does, with its default limits.
fn read(file: &Path) -> Result<Plan> {
    let document = plan_file::read(file)?;
    let limits = Limits { long_gates: true, ..Limits::default() };
    plan::parse(&document.value["plan"], &limits).map_err(|problems| anyhow!(document.invalid("", &problems)))
}

/// The text of `plan.schema.json`.
pub fn schema() -> String {
    format!("{:#}\n", plan_schema::schema(&Limits::default()))
}

/// A line for each step. Steps on the same level can run concurrently.
fn shown(mut plan: PlanChecked) -> String {
    plan.steps.sort_by_key(|step| step.level);
    let width = |of: fn(&CheckedStep) -> &str| plan.steps.iter().map(|step| printable(of(step)).chars().count()).max();
    let (name, tool) = (width(|step| &step.name).unwrap_or(0), width(|step| &step.tool).unwrap_or(0));
    let mut text = format!("valid: {}\n", printable(&plan.goal));
    if let Some(budget) = plan.budget_usd_micros {
        let _ = writeln!(text, "budget: models may cost {budget}");
    }
    for step in &plan.steps {
        let line = format!(
            "{:>4}  {:name$}  {:tool$}  {}",
            step.level + 1,
            printable(&step.name),
            printable(&step.tool),
            details(step)
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn details(step: &CheckedStep) -> String {
    let timeout = step.timeout_s.map_or("no timeout".to_owned(), |seconds| format!("{seconds} s"));
    let attempts =
        if step.max_attempts == 1 { "1 attempt".to_owned() } else { format!("{} attempts", step.max_attempts) };
    let parents: Vec<String> = step.depends_on.iter().map(|name| printable(name)).collect();
    let after = if parents.is_empty() { String::new() } else { format!("  after {}", parents.join(", ")) };
    format!("{timeout}, {attempts}{after}")
}

#[cfg(test)]
mod tests {
    use shared::domain::MicroUsd;

    use super::*;

    #[test]
    fn steps_are_shown_in_the_order_in_which_they_can_start() {
        let step = |name: &str, level, depends_on: &[&str], timeout_s: Option<u32>, max_attempts| CheckedStep {
            name: name.into(),
            tool: if timeout_s.is_none() { "manual:release".into() } else { "echo".into() },
            handler: "echo".into(),
            level,
            depends_on: depends_on.iter().map(|name| (*name).to_owned()).collect(),
            references: Vec::new(),
            timeout_s,
            max_attempts,
            backoff_ms: 1_000,
            approval: None,
        };
        let plan = PlanChecked {
            goal: "a\u{1b}b".into(),
            timeout_s: None,
            budget_usd_micros: Some(MicroUsd(100_000)),
            steps: vec![
                step("ask", 1, &["b", "first"], None, 1),
                step("first", 0, &[], Some(20), 3),
                step("b", 0, &[], Some(5), 3),
            ],
        };
        let lines = [
            "valid: a\\u{1b}b",
            "budget: models may cost $0.10",
            "   1  first  echo            20 s, 3 attempts",
            "   1  b      echo            5 s, 3 attempts",
            "   2  ask    manual:release  no timeout, 1 attempt  after b, first",
        ];
        assert_eq!(shown(plan), lines.join("\n") + "\n");
    }
}
