//! Decisions on gates.

use anyhow::Result;
use serde_json::{Value, json};

use crate::client::api::Api;

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
