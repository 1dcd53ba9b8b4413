//! Decisions on gates.

use anyhow::Result;
use serde_json::json;
use shared::domain::gate::Decision;
use shared::view::Gate;

use crate::client::api::Api;

/// Decides a gate.
pub async fn decide(
    api: &Api,
    decision: Decision,
    gate_id: &str,
    name: Option<&str>,
    reason: Option<&str>,
    seen: Option<&str>,
) -> Result<Gate> {
    let mut body = json!({});
    if let Some(name) = name {
        body["approved_by"] = json!(name);
    }
    if let Some(reason) = reason {
        body["reason"] = json!(reason);
    }
    if let Some(digest) = seen {
        body["digest"] = json!(digest);
    }
    let verb = match decision {
        Decision::Approve => "approve",
        Decision::Reject => "reject",
        Decision::Waive => "waive",
    };
    api.post(&format!("/gates/{gate_id}/{verb}"), &body).await
}
