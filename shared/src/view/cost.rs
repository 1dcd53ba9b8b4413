//! What model calls cost. Amounts are micro-dollars (1 USD is 1,000,000).

use serde::{Deserialize, Serialize};

use crate::domain::{MicroUsd, RunId, StepId};

/// What the model calls of a run cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RunCosts {
    pub run_id: RunId,
    /// Null without a budget.
    pub budget_usd_micros: Option<MicroUsd>,
    pub spent_usd_micros: MicroUsd,
    /// What calls in flight can still cost.
    pub reserved_usd_micros: MicroUsd,
    /// Steps that called models, those that cost most first, at most 1,000.
    pub steps: Vec<StepCost>,
    /// The same calls by provider and model that answered, those that cost most first, at most 200.
    pub models: Vec<ModelCost>,
}

/// Model calls that were added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct CallCosts {
    pub calls: u64,
    /// Calls that are in flight.
    pub open: u64,
    /// Ended calls without a usable answer.
    pub unusable: u64,
    /// Calls that were charged what was reserved, because nobody knows their tokens.
    pub estimated: u64,
    /// Ended calls of models without a price. They count as 0 dollars.
    pub unpriced: u64,
    pub input_tokens: u64,
    /// Part of the input tokens.
    pub cached_input_tokens: u64,
    pub output_tokens: u64,
    pub cost_usd_micros: MicroUsd,
}

/// What the model calls of a step cost, in all attempts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct StepCost {
    pub step_id: StepId,
    pub name: String,
    #[serde(flatten)]
    pub total: CallCosts,
}

/// What the calls of a model cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ModelCost {
    pub provider: String,
    /// The model that answered, or the one that was asked if no answer names one.
    pub model: String,
    #[serde(flatten)]
    pub total: CallCosts,
}

/// What the model calls of a tenant cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Costs {
    /// The first day (UTC), such as `2026-11-30`.
    pub from: String,
    /// The last day.
    pub to: String,
    pub total: CallCosts,
    /// Each day and model, newest first, those that cost most first, at most 1,000.
    pub days: Vec<DayCost>,
    /// True if there are more rows than are listed. They are part of the total.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The budgets of the tenant, today.
    pub budgets: Vec<BudgetState>,
}

/// What the calls of a model cost on one day.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct DayCost {
    pub day: String,
    pub provider: String,
    pub model: String,
    #[serde(flatten)]
    pub total: CallCosts,
}

/// What is left of a budget of the tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct BudgetState {
    /// `day` or `month`.
    pub period: String,
    /// Its first day (UTC).
    pub starts_on: String,
    /// Null without a budget.
    pub cap_usd_micros: Option<MicroUsd>,
    pub spent_usd_micros: MicroUsd,
    pub reserved_usd_micros: MicroUsd,
}
