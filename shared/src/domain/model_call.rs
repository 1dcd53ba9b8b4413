//! Requests to models as a worker accounts for them: each is started, which reserves money, and ended, which settles it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::id::RunId;
use super::model_policy::ModelPolicy;
use super::money::MicroUsd;
use super::outcome::{ArtifactRef, StepError};
use super::price::PriceRef;
use super::token_usage::TokenUsage;

/// One request that is about to be sent. Sending it needs a [`Permit`].
#[derive(Debug, Clone, Serialize)]
pub struct CallStart {
    /// Of this request alone. A repeated start with the same id changes nothing.
    pub id: Uuid,
    pub provider: String,
    /// The model that is asked.
    pub model: String,
    /// What can be rate limited or broken: a provider, a base URL and a key. 16 hex digits.
    pub deployment: String,
    /// The most that the request can cost. `None` if no price is known.
    #[serde(rename = "reserve_usd_micros")]
    pub reserve: Option<MicroUsd>,
    pub price: Option<PriceRef>,
    /// How long the request may take. A while after that it counts as lost.
    pub limit_ms: u64,
    pub because: Because,
}

/// Why a request is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Because {
    /// The router's first choice.
    First,
    /// The same model again, after this fault.
    Retry { kind: String, reason: String },
    /// Another model, because this one failed or was left out.
    Fallback { provider: String, model: String, kind: String, reason: String },
}

/// The answer to a start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Permit {
    /// The money is reserved. The request may be sent.
    Granted,
    /// The attempt no longer owns its step: it was cancelled, its lease is over, or there is a newer attempt.
    Lost,
    /// A budget applies, and no price is known.
    Unpriced {
        scope: BudgetScope,
    },
    OverBudget(Shortfall),
}

/// What a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// The run: `plan.budget`.
    Run,
    /// All runs of the tenant on one day (UTC).
    Day,
    /// All runs of the tenant in one month (UTC).
    Month,
}

/// A budget that does not cover a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    pub scope: BudgetScope,
    #[serde(rename = "cap_usd_micros")]
    pub cap: MicroUsd,
    #[serde(rename = "spent_usd_micros")]
    pub spent: MicroUsd,
    /// What requests in flight can still cost.
    #[serde(rename = "reserved_usd_micros")]
    pub reserved: MicroUsd,
    /// What the request can cost.
    #[serde(rename = "needs_usd_micros")]
    pub needs: MicroUsd,
}

/// How a request ended. A repeated end with the same id changes nothing, except that a known cost replaces a ceiling.
#[derive(Debug, Clone, Serialize)]
pub struct CallEnd {
    pub id: Uuid,
    /// What the provider reported.
    pub usage: Option<TokenUsage>,
    pub charge: Charge,
    pub model_served: Option<String>,
    /// Whether the answer could be used.
    pub usable: bool,
    /// Why there is no usable answer.
    pub fault: Option<CallFault>,
    pub duration_ms: u64,
    /// Makes all workers skip the deployment or the model for a while.
    pub cooldown: Option<Cooldown>,
    /// Ends the cooldowns of the deployment and of the model. Other models keep theirs.
    pub recovered: bool,
}

/// What a streamed answer has so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallProgress {
    /// Of its request.
    pub id: Uuid,
    pub bytes: usize,
    /// The last characters, at most 1,000.
    pub tail: String,
}

/// What a request costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "usd_micros", rename_all = "snake_case")]
pub enum Charge {
    /// It was never sent, or refused by its status.
    Nothing,
    /// The cost of the reported tokens. The database charges at most what was reserved.
    Usage(MicroUsd),
    /// Nobody knows the tokens: everything that was reserved.
    Ceiling,
    /// Nobody knows the price.
    Unpriced,
}

/// Why a request gave no usable answer. Safe to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFault {
    pub kind: String,
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// How long a deployment, or one of its models, is skipped, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    pub for_ms: u64,
    /// Only the model that was asked is skipped.
    pub of_model: bool,
    pub kind: String,
    pub reason: String,
}

/// An earlier answer of a model to the same question.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CachedAnswer {
    pub artifact: ArtifactRef,
    /// The run that made it.
    pub run_id: RunId,
    /// What codegen recorded about it.
    pub metadata: Value,
    pub age_s: u64,
    /// What the requests for it cost. `None` if no price is known.
    #[serde(rename = "cost_usd_micros")]
    pub cost: Option<MicroUsd>,
}

/// What binds the model calls of a step, at the time of its claim.
#[derive(Debug, Clone, Default)]
pub struct ModelTerms {
    pub policy: ModelPolicy,
    /// The version of the policy. 0 if the tenant has none.
    pub policy_version: u32,
    /// Deployments and models that failed a short while ago.
    pub cooldowns: Vec<DeploymentCooldown>,
    /// Whether a budget applies, so that models without a price are refused.
    pub is_budgeted: bool,
}

/// A deployment, or one of its models, that is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DeploymentCooldown {
    /// `DEPLOYMENT`, or `DEPLOYMENT/MODEL` if only that model is skipped.
    pub deployment: String,
    /// What was left of it when the step was claimed.
    pub left_ms: u64,
    pub kind: String,
    pub reason: String,
}

impl DeploymentCooldown {
    /// Whether this model of this deployment is skipped.
    pub fn is_of(&self, deployment: &str, model: &str) -> bool {
        let rest = self.deployment.strip_prefix(deployment);
        rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('/') == Some(model))
    }
}

impl Charge {
    /// The charge of a request that was sent: the cost of its tokens, or the ceiling if they are not known.
    pub fn of(price: Option<&PriceRef>, usage: Option<&TokenUsage>) -> Self {
        let Some(PriceRef { price, .. }) = price else { return Self::Unpriced };
        usage.and_then(|usage| price.cost(usage)).map_or(Self::Ceiling, Self::Usage)
    }
}

impl fmt::Display for BudgetScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Run => "The budget of the run",
            Self::Day => "The tenant's budget of the day",
            Self::Month => "The tenant's budget of the month",
        })
    }
}

impl StepError {
    /// No price is known for a model, and a budget applies.
    pub fn model_unpriced(provider: &str, model: &str, scope: BudgetScope) -> Self {
        let message = format!(
            "{scope} applies, and no price of {provider}/{model} is known. Add it to models.prices of the policy: {{\"provider\": \
             \"{provider}\", \"model\": \"{model}\", \"input_usd_per_mtok\": .., \"output_usd_per_mtok\": ..}} (docs/models.md#money)."
        );
        Self::new("model_unpriced", message)
            .with_details(json!({ "provider": provider, "model": model, "scope": scope }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Shortfall = Shortfall {
        scope: BudgetScope::Run,
        cap: MicroUsd(1_000_000),
        spent: MicroUsd(700_000),
        reserved: MicroUsd(200_000),
        needs: MicroUsd(250_000),
    };

    #[test]
    fn a_permit_reads_what_the_database_answers() {
        let answer = json!({"result": "over_budget", "scope": "run", "cap_usd_micros": 1_000_000, "spent_usd_micros": 700_000,
                            "reserved_usd_micros": 200_000, "needs_usd_micros": 250_000});
        assert_eq!(serde_json::from_value::<Permit>(answer).unwrap(), Permit::OverBudget(SHORT));
        assert_eq!(serde_json::from_value::<Permit>(json!({"result": "granted"})).unwrap(), Permit::Granted);
        assert_eq!(
            serde_json::from_value::<Permit>(json!({"result": "unpriced", "scope": "day"})).unwrap(),
            Permit::Unpriced { scope: BudgetScope::Day }
        );
    }

    #[test]
    fn a_cooldown_is_of_a_deployment_or_of_one_of_its_models() {
        let of = |deployment: &str, model| {
            let deployment = deployment.to_owned();
            DeploymentCooldown { deployment, left_ms: 1, kind: String::new(), reason: String::new() }.is_of("d", model)
        };
        assert!(of("d", "m") && of("d/m", "m") && of("d/qwen/m", "qwen/m"));
        assert!(!of("d2", "m") && !of("d/m", "m2") && !of("d/m2", "m") && !of("d/", "m") && !of("", "m"));
    }

    #[test]
    fn a_charge_is_the_cost_or_the_ceiling() {
        let price = PriceRef {
            version: "1".into(),
            price: crate::domain::price::Price { input: 1_000_000, ..Default::default() },
        };
        let usage = TokenUsage { input_tokens: Some(3), output_tokens: Some(9), ..TokenUsage::default() };
        assert_eq!(Charge::of(Some(&price), Some(&usage)), Charge::Usage(MicroUsd(3)));
        assert_eq!(Charge::of(Some(&price), Some(&TokenUsage::default())), Charge::Ceiling);
        assert_eq!(Charge::of(Some(&price), None), Charge::Ceiling);
        assert_eq!(Charge::of(None, Some(&usage)), Charge::Unpriced);
        assert_eq!(json!(Charge::Usage(MicroUsd(3))), json!({"kind": "usage", "usd_micros": 3}));
        assert_eq!(json!(Charge::Ceiling), json!({"kind": "ceiling"}));
    }
}
