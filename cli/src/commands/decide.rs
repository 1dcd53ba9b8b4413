//! `nofx approve`, `nofx reject`, `nofx waive`: decisions on gates.

use std::env;

use anyhow::Result;
use shared::domain::gate::Decision;

use crate::client::api::Api;
use crate::client::gate;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The gate to decide
    gate_id: String,
    /// Why, for whoever reads the record
    #[arg(long)]
    reason: Option<String>,
    /// Who decides, where the API takes the caller's word for it
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
}

/// Decides and prints the gate's new state.
pub async fn run(api: &Api, decision: Decision, args: &Args) -> Result<()> {
    let name = args.name.clone().or_else(|| env::var("USER").ok().filter(|name| !name.is_empty()));
    let gate = gate::decide(api, decision, &args.gate_id, name.as_deref(), args.reason.as_deref()).await?;
    println!("{} {}", gate.id, gate.status);
    Ok(())
}
