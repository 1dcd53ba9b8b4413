//! Tools `manual:*`: creates a gate that a person decides. The step stays blocked until the decision finishes it. No
//! process waits.

use serde_json::Value;
use shared::domain::hidden::visible;
use shared::domain::outcome::{NewGateStatus, OnPass};
use shared::domain::{GateId, NewGate, Outcome, StepError};
use shared::storage::StepStore;
use shared::worker::{ClaimedStep, Handler};
use uuid::Uuid;

/// The limit on the reason that a plan gives to approvers.
const MAX_REASON_CHARS: usize = 2_000;

/// The handler of tools `manual:*`.
pub struct Manual;

impl Handler for Manual {
    async fn handle(&self, step: &ClaimedStep, _: &StepStore) -> Outcome {
        let reason = match &step.inputs["reason"] {
            Value::Null => None,
            Value::String(text) if text.chars().count() <= MAX_REASON_CHARS => Some(visible(text)),
            _ => {
                let message = format!("inputs.reason must be a string of at most {MAX_REASON_CHARS} characters");
                return Outcome::failed(StepError::new("invalid_inputs", message));
            }
        };
        Outcome::blocked(NewGate {
            id: gate_id(step),
            gate_type: step.tool.clone(),
            status: NewGateStatus::Pending,
            subject: None,
            evidence_uri: None,
            on_pass: OnPass::Finish,
            expires_after_s: step.timeout_s,
            reason,
        })
    }
}

/// The gate's id depends only on the step and the attempt, so a message that is delivered twice creates one gate.
fn gate_id(step: &ClaimedStep) -> GateId {
    GateId(Uuid::new_v5(&step.step_id.0, &step.attempt.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn step(attempt: u32) -> ClaimedStep {
        ClaimedStep {
            tenant_id: shared::domain::TenantId("local".into()),
            run_id: shared::domain::RunId(Uuid::from_u128(1)),
            step_id: shared::domain::StepId(Uuid::from_u128(2)),
            name: "wait".into(),
            tool: "manual:deploy".into(),
            attempt,
            inputs: serde_json::json!({}),
            goal: "g".into(),
            workspace: None,
            base_origin: None,
            artifacts: std::collections::BTreeMap::new(),
            timeout: Duration::from_secs(1),
            timeout_s: Some(60),
            policy: shared::domain::Policy::default(),
            decisions: Vec::new(),
            models: shared::domain::ModelTerms::default(),
            repair: None,
        }
    }

    #[test]
    fn a_repeated_attempt_has_the_same_gate_and_a_retry_a_new_one() {
        assert_eq!(gate_id(&step(1)), gate_id(&step(1)));
        assert_ne!(gate_id(&step(1)), gate_id(&step(2)));
    }
}
