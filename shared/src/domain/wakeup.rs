//! Wake-ups. They are sent after the commit of a transition.

use serde::Deserialize;

use super::id::{RunId, StepId, TenantId};

/// Tells a handler that a step is ready to be claimed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct WakeUp {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub step_id: StepId,
    pub handler: String,
    /// Delay of the message, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    pub traceparent: Option<String>,
}
