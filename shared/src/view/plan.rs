//! Checked plans.

use serde::{Deserialize, Serialize};

use crate::domain::MicroUsd;
use crate::domain::approval::ApprovalRule;
use crate::domain::plan::{Plan, PlanStep};

/// A plan that `POST /runs` would accept, with its defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct PlanChecked {
    pub goal: String,
    pub timeout_s: Option<u32>,
    /// The most that its requests to models may cost together, in micro-dollars.
    #[serde(default)]
    pub budget_usd_micros: Option<MicroUsd>,
    /// In the order listed.
    pub steps: Vec<CheckedStep>,
}

/// A step of such a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct CheckedStep {
    pub name: String,
    pub tool: String,
    /// The handler that serves the tool.
    pub handler: String,
    /// 0 if the step starts at once, else one more than the highest level of its parents.
    pub level: usize,
    /// Names of its parents, in the order of the plan.
    pub depends_on: Vec<String>,
    /// References of its inputs to outputs of steps upstream.
    pub references: Vec<OutputReference>,
    /// How long one attempt may take, in seconds. Null for a manual step whose gate never expires.
    pub timeout_s: Option<u32>,
    pub max_attempts: u32,
    pub backoff_ms: u32,
    /// Who must approve it before it starts, or decides its gate: the stricter of the plan and the tenant's policy.
    #[serde(default)]
    pub approval: Option<ApprovalRule>,
}

/// A place in a step's outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct OutputReference {
    pub step: String,
    /// Keys of objects and positions in lists. Empty for the whole outputs.
    pub path: Vec<String>,
}

impl From<&Plan> for PlanChecked {
    fn from(plan: &Plan) -> Self {
        let step = |(step, level): (&PlanStep, usize)| CheckedStep {
            name: step.name.clone(),
            tool: step.tool.clone(),
            handler: step.handler.to_owned(),
            level,
            depends_on: step.parents.iter().map(|&parent| plan.steps[parent].name.clone()).collect(),
            references: step.refs.iter().cloned().map(|of| OutputReference { step: of.step, path: of.path }).collect(),
            timeout_s: step.timeout_s,
            max_attempts: step.max_attempts,
            backoff_ms: step.backoff_ms,
            approval: None,
        };
        Self {
            goal: plan.goal.clone(),
            timeout_s: plan.timeout_s,
            budget_usd_micros: plan.budget,
            steps: plan.steps.iter().zip(plan.levels()).map(step).collect(),
        }
    }
}
