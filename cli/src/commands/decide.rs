//! `nofx approve`, `nofx reject`, `nofx waive`: decisions on gates.

use anyhow::Result;
use nofx_local::report::printable;
use serde_json::Value;

use crate::client::api::Api;
use crate::client::gate::{self, Decision};
use crate::commands::who::Who;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Id of the gate, as `nofx watch` prints it
    gate_id: String,
    /// The reason, kept with the decision
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    who: Who,
}

/// Decides and prints the gate's new state.
pub async fn run(api: &Api, decision: Decision, args: &Args) -> Result<()> {
    let gate = gate::decide(api, decision, &args.gate_id, args.who.name().as_deref(), args.reason.as_deref()).await?;
    let status = gate.get("status").and_then(Value::as_str).unwrap_or("decided");
    println!("{} {}", args.gate_id, printable(status));
    Ok(())
}
