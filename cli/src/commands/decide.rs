//! `nofx approve`, `nofx reject`, `nofx waive`: decisions on gates.

use anyhow::{Context, Result};
use nofx_local::report::printable;
use shared::domain::GateStatus;
use shared::domain::gate::Decision;
use shared::view::Gate;

use crate::client::api::Api;
use crate::client::error::about_run;
use crate::client::{gate, resolve};
use crate::commands::actor::Actor;
use crate::commands::evidence::difference;
use crate::output::color::command;
use crate::output::{self, Format, state};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The gate: its id, or the beginning or end of the id of a gate that waits
    gate: String,
    /// Reason, recorded with the decision
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    actor: Actor,
    #[command(flatten)]
    format: Format,
}

/// Decides and prints the gate's new state. If the decision is about a difference, prints that first, with `--json` to
/// standard error: nobody lets a change pass that cannot be shown.
pub async fn run(api: &Api, decision: Decision, args: &Args) -> Result<()> {
    let id = resolve::gate(api, &args.gate).await?.to_string();
    let gate: Gate = api.get(&format!("/gates/{id}")).await?;
    let shown = difference(api, &gate).await;
    if let Ok(lines) = &shown {
        for line in lines {
            if args.format.json { output::note(line) } else { output::line(line)? }
        }
    }
    if decision != Decision::Reject {
        shown.context("nothing was decided: what the gate asks about cannot be shown")?;
    }
    let (name, reason, seen) = (args.actor.name(), args.reason.as_deref(), gate.digest.as_deref());
    let decided = gate::decide(api, decision, &id, name.as_deref(), reason, seen).await;
    let gate = decided.map_err(|error| about_run(error, gate.run_id))?;
    if args.format.json {
        return output::json(&gate);
    }
    let name = printable(&gate.gate_type);
    output::line(format_args!("{}  {name}  {}", state::gate(gate.status).painted(), gate.id))?;
    if let (true, Some(required)) = (gate.status == GateStatus::Pending, gate.standing.required) {
        let approved = gate.standing.approved.unwrap_or_default();
        output::note(format_args!("{approved} of {required} approvals: other people must approve it too"));
    }
    output::note(format_args!("follow the run with {}", command(format!("nofx watch {}", gate.run_id))));
    Ok(())
}
