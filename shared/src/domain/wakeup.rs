//! What a transition owes after its commit.

use serde::Deserialize;

use super::id::{RunId, StepId, TenantId};

/// A step that is ready, and whose handler should come and claim it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct WakeUp {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub step_id: StepId,
    pub handler: String,
    /// How long the message should be held back.
    #[serde(default)]
    pub delay_ms: u64,
    pub traceparent: Option<String>,
}
