//! What model calls cost.

use serde_json::{Value, json};
use shared::http::contract::{Operation, Schemas};
use shared::view::{Costs, RunCosts};

use super::{RUNS, get};

/// Operations of costs.
pub(super) fn costs(schemas: &mut Schemas) -> Vec<Operation> {
    vec![
        get(
            "/runs/{id}/costs",
            "fetchRunCosts",
            RUNS,
            "Read what the model calls of a run cost, by step and by model.",
        )
        .answers(200, "The costs.", schemas.of::<RunCosts>())
        .example("run", "GET /runs/{id}/costs")
        .has_etag(),
        get(
            "/costs",
            "fetchCosts",
            RUNS,
            "Read what the model calls of the tenant cost, by day and model, and its budgets.",
        )
        .parameter("from", day("The first day (UTC). Without it, 30 days. It needs `to`, at most 365 days later."))
        .parameter("to", day("The last day (UTC). Without it, today."))
        .answers(200, "The costs.", schemas.of::<Costs>())
        .example("run", "GET /costs"),
    ]
}

fn day(about: &str) -> Value {
    json!({"description": about, "type": "string", "format": "date"})
}
