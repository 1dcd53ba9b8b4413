//! `nofx approve`, `nofx reject`, `nofx waive`: decisions on gates.

use anyhow::{Context, Result};
use shared::domain::gate::Decision;

use crate::client::api::Api;
use crate::client::gate;
use crate::commands::actor::Actor;
use crate::commands::evidence::print_difference;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Id of the gate, as `nofx watch` prints it
    gate_id: String,
    /// Reason, recorded with the decision
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    actor: Actor,
}

/// Decides and prints the gate's new state. If the decision is about a difference, prints that first: nobody lets a
/// change pass that cannot be shown.
pub async fn run(api: &Api, decision: Decision, args: &Args) -> Result<()> {
    let shown = print_difference(api, &args.gate_id).await;
    if decision != Decision::Reject {
        shown.context("nothing was decided: what the gate asks about cannot be shown")?;
    }
    let gate = gate::decide(api, decision, &args.gate_id, args.actor.name().as_deref(), args.reason.as_deref()).await?;
    println!("{} {}", gate.id, gate.status);
    Ok(())
}
