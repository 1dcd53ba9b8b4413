//! `nofx costs`: what model calls of a run or of the tenant cost.

use anyhow::Result;
use shared::domain::MicroUsd;
use shared::view::{Cost, Costs, RunCosts};

use crate::client::api::Api;
use crate::client::resolve;
use crate::output::color::DIM;
use crate::output::table::{Table, cell, styled};
use crate::output::{self, Format};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The run: its id, the beginning or end of its id, or `last`. Without it, all runs of the tenant
    run: Option<String>,
    /// The first day (UTC), such as 2026-11-01. Without it, 30 days
    #[arg(long, value_name = "DAY", requires = "to", conflicts_with = "run")]
    from: Option<String>,
    /// The last day (UTC). Without it, today
    #[arg(long, value_name = "DAY", conflicts_with = "run")]
    to: Option<String>,
    #[command(flatten)]
    format: Format,
}

/// `nofx costs`.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    match &args.run {
        Some(run) => of_run(api, run, args).await,
        None => of_tenant(api, args).await,
    }
}

async fn of_run(api: &Api, run: &str, args: &Args) -> Result<()> {
    let run = resolve::run(api, run).await?;
    let costs: RunCosts = api.get(&format!("/runs/{run}/costs")).await?;
    if args.format.json {
        return output::json(&costs);
    }
    let budget = costs.budget_usd_micros.map_or_else(|| "no budget".to_owned(), |budget| format!("budget {budget}"));
    let (spent, reserved) = (costs.spent_usd_micros, costs.reserved_usd_micros);
    output::text(format_args!("spent {spent}, reserved {reserved}, {budget}{}\n", saved(costs.saved_usd_micros)))?;
    if costs.steps.is_empty() {
        output::note(format_args!("the run has called no model"));
        return Ok(());
    }
    let mut steps = table("STEP");
    for step in &costs.steps {
        row(&mut steps, step.name.as_deref().unwrap_or_default(), step);
    }
    output::text(steps)?;
    let mut models = table("MODEL");
    for model in &costs.models {
        row(&mut models, &model.model_name(), model);
    }
    output::text(models)
}

async fn of_tenant(api: &Api, args: &Args) -> Result<()> {
    let days = [("from", &args.from), ("to", &args.to)];
    let query: Vec<String> = days
        .into_iter()
        .filter_map(|(name, day)| Some(format!("{name}={}", shared::http::encoded(day.as_deref()?))))
        .collect();
    let path = if query.is_empty() { "/costs".to_owned() } else { format!("/costs?{}", query.join("&")) };
    let costs: Costs = api.get(&path).await?;
    if args.format.json {
        return output::json(&costs);
    }
    output::text(format_args!(
        "{} to {}: {} in {} calls{}\n",
        costs.from,
        costs.to,
        costs.total.cost_usd_micros,
        costs.total.calls,
        saved(costs.saved_usd_micros)
    ))?;
    for budget in &costs.budgets {
        let cap = budget.cap_usd_micros.map_or_else(|| "no budget".to_owned(), |cap| format!("budget {cap}"));
        let (spent, reserved) = (budget.spent_usd_micros, budget.reserved_usd_micros);
        output::text(format_args!("this {}: spent {spent}, reserved {reserved}, {cap}\n", budget.period))?;
    }
    if costs.days.is_empty() {
        return Ok(());
    }
    let mut days = Table::new(&["DAY", "MODEL", "CALLS", "TOKENS IN", "OUT", "COST"]).whole(&[0, 2, 3, 4, 5]);
    days = days.right(2).right(3).right(4).right(5);
    for day in &costs.days {
        let first = [day.day.clone().unwrap_or_default(), day.model_name()];
        days.row(first.into_iter().chain(numbers(day)).map(cell).collect());
    }
    output::text(days)?;
    if costs.truncated {
        output::note(format_args!("there are more days and models; choose fewer days with --from and --to"));
    }
    Ok(())
}

/// What the cache saved, if it did.
fn saved(amount: MicroUsd) -> String {
    if amount == MicroUsd::ZERO { String::new() } else { format!(", {amount} saved by the cache") }
}

fn table(what: &'static str) -> Table {
    let table = Table::new(&[what, "CALLS", "TOKENS IN", "OUT", "COST"]).whole(&[1, 2, 3, 4]);
    table.right(1).right(2).right(3).right(4)
}

fn row(table: &mut Table, name: &str, total: &Cost) {
    let [calls, input, output, cost] = numbers(total);
    let cost = if has_no_price(total) { styled(cost, DIM) } else { cell(cost) };
    table.row(vec![cell(name), cell(calls), cell(input), cell(output), cost]);
}

/// Calls, tokens in and out, and the cost.
fn numbers(total: &Cost) -> [String; 4] {
    let cost = if has_no_price(total) { "no price".to_owned() } else { total.cost_usd_micros.to_string() };
    [total.calls.to_string(), total.input_tokens.to_string(), total.output_tokens.to_string(), cost]
}

fn has_no_price(total: &Cost) -> bool {
    total.cost_usd_micros == MicroUsd::ZERO && total.unpriced > 0
}
