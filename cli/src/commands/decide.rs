//! `nofx approve`, `nofx reject`, `nofx waive`: decisions on gates.

use anyhow::Result;
use shared::domain::gate::Decision;

use crate::client::api::Api;
use crate::client::gate;
use crate::commands::actor::Actor;

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

/// Decides and prints the gate's new state.
pub async fn run(api: &Api, decision: Decision, args: &Args) -> Result<()> {
    let gate = gate::decide(api, decision, &args.gate_id, args.actor.name().as_deref(), args.reason.as_deref()).await?;
    println!("{} {}", gate.id, gate.status);
    Ok(())
}
