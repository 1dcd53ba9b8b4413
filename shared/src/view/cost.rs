//! What model calls cost. Amounts are micro-dollars (1 USD is 1,000,000).

use serde::{Deserialize, Serialize};

use crate::domain::{MicroUsd, RunId, StepId};

/// What the model calls of a run cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RunCosts {
    pub run_id: RunId,
    pub budget_usd_micros: Option<MicroUsd>,
    pub spent_usd_micros: MicroUsd,
    pub reserved_usd_micros: MicroUsd,
    /// What answers of the cache would have cost.
    #[serde(default)]
    pub saved_usd_micros: MicroUsd,
    /// Steps that called models, at most 1,000.
    pub steps: Vec<Cost>,
    /// The same calls by model, at most 200.
    pub models: Vec<Cost>,
}

/// Model calls that were added up: those of a step, of a model, or of a model on one day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Cost {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_id: Option<StepId>,
    /// The step's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// In UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The one that answered, or that was asked if no answer names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    pub calls: u64,
    /// In flight.
    pub open: u64,
    pub unusable: u64,
    /// Charged what was reserved, because nobody knows the tokens.
    pub estimated: u64,
    /// Without a price: they count as 0.
    pub unpriced: u64,
    pub input_tokens: u64,
    pub cached_input_tokens: u64,
    pub output_tokens: u64,
    pub cost_usd_micros: MicroUsd,
}

impl Cost {
    /// Provider and model, as `openai/gpt-6-luna`.
    pub fn model_name(&self) -> String {
        format!("{}/{}", self.provider.as_deref().unwrap_or_default(), self.model.as_deref().unwrap_or_default())
    }
}

/// What the model calls of a tenant cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Costs {
    pub from: String,
    pub to: String,
    pub total: Cost,
    /// What answers of the cache would have cost.
    #[serde(default)]
    pub saved_usd_micros: MicroUsd,
    /// By day and model, newest first, at most 1,000.
    pub days: Vec<Cost>,
    /// More rows exist. They are part of the total.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Of today and this month.
    pub budgets: Vec<BudgetState>,
}

/// A budget of the tenant, and what is used of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct BudgetState {
    /// `day` or `month`.
    pub period: String,
    pub starts_on: String,
    pub cap_usd_micros: Option<MicroUsd>,
    pub spent_usd_micros: MicroUsd,
    pub reserved_usd_micros: MicroUsd,
}
