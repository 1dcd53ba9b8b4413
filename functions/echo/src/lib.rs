//! Tool `echo`: returns its inputs as outputs. For smoke tests and benchmarks.

use serde_json::Value;
use shared::domain::Outcome;
use shared::storage::StepStore;
use shared::worker::{ClaimedStep, Handler};

/// The handler of tool `echo`.
pub struct Echo;

impl Handler for Echo {
    async fn handle(&self, step: &ClaimedStep, _: &StepStore) -> Outcome {
        match &step.inputs {
            Value::Object(inputs) => Outcome::succeeded(inputs.clone()),
            // Unreachable: a plan whose inputs are not an object is rejected.
            _ => Outcome::succeeded(serde_json::Map::new()),
        }
    }
}
