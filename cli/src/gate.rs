//! `nofx approve`, `nofx reject`, `nofx waive`: decisions on gates.

use std::env;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{api::Api, report::printable};

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

#[derive(Clone, Copy, Debug)]
pub enum Decision {
    Approve,
    Reject,
    Waive,
}

impl Decision {
    fn verb(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Waive => "waive",
        }
    }
}

/// Decides and prints the gate's new state.
pub async fn run(api: &Api, decision: Decision, args: &Args) -> Result<()> {
    let name = args.name.clone().or_else(|| env::var("USER").ok().filter(|name| !name.is_empty()));
    let gate = decide(api, decision, &args.gate_id, name.as_deref(), args.reason.as_deref()).await?;
    let status = gate.get("status").and_then(Value::as_str).unwrap_or("decided");
    println!("{} {}", args.gate_id, printable(status));
    Ok(())
}

/// Decides a gate.
pub async fn decide(
    api: &Api,
    decision: Decision,
    gate_id: &str,
    name: Option<&str>,
    reason: Option<&str>,
) -> Result<Value> {
    let mut body = json!({});
    if let Some(name) = name {
        body["approved_by"] = json!(name);
    }
    if let Some(reason) = reason {
        body["reason"] = json!(reason);
    }
    api.post(&format!("/gates/{gate_id}/{}", decision.verb()), &body).await
}
