//! Tool `echo`: returns its inputs as outputs. For smoke tests and benchmarks.

use serde_json::Value;
use shared::domain::Outcome;
use shared::storage::StepStore;
use shared::worker::{ClaimedStep, Handler};

/// Returns its inputs.
pub struct Echo;

impl Handler for Echo {
    async fn handle(&self, step: &ClaimedStep, _: &StepStore) -> Outcome {
        match &step.inputs {
            Value::Object(inputs) => Outcome::succeeded(inputs.clone()),
            // Plans whose inputs are not an object are refused.
            _ => Outcome::succeeded(serde_json::Map::new()),
        }
    }
}
