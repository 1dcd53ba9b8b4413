//! Decides which models to ask, in which order, and why others are left out.
//!
//! Pure: no IO, no clock, no randomness. What a step says comes before the tenant's policy, which comes before
//! `LLM_ORDER`, which comes before the default order of the kind.

use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};
use shared::domain::ModelTerms;
use shared::domain::digest::hex;
use shared::domain::model_call::DeploymentCooldown;
use shared::domain::price::{PriceRef, PriceTable};

use crate::config::{CodegenConfig, default_order};
use crate::fault::FaultKind;
use crate::inputs::Request;
use crate::keys::{ApiKey, ProviderKeys};
use crate::provider::{Provider, Target};

/// What may be asked: the settings of the deployment, and the terms of the tenant.
#[derive(Clone, Copy)]
pub(crate) struct Policy<'a> {
    pub config: &'a CodegenConfig,
    pub terms: &'a ModelTerms,
    pub prices: &'a PriceTable,
}

/// What works now. Cooldowns count from the claim.
#[derive(Clone, Copy)]
pub(crate) struct Health<'a> {
    pub keys: &'a ProviderKeys,
    pub cooldowns: &'a [DeploymentCooldown],
}

/// The models to ask, best first, and those that are left out. Each has its position in the whole order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub attempts: Vec<Attempt>,
    pub left_out: Vec<LeftOut>,
}

/// A model to ask.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub position: usize,
    pub provider: Provider,
    pub model: String,
    pub key: Option<ApiKey>,
    pub deployment: String,
    pub price: Option<PriceRef>,
    pub chosen_by: ChosenBy,
    /// It cools down like all others, and is asked anyway.
    pub is_cooling: bool,
}

/// A model that is not asked, and why. The reason is safe to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub position: usize,
    pub provider: Provider,
    pub model: String,
    pub kind: FaultKind,
    pub reason: String,
    pub retry_after: Option<Duration>,
}

/// Who put a model into the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChosenBy {
    Step,
    Policy,
    Deployment,
    Default,
}

/// Everything that a request may ask, best first, before anything is left out.
pub(crate) fn targets(policy: &Policy<'_>, request: &Request) -> (ChosenBy, Vec<Target>) {
    if let Some(provider) = request.provider {
        return (ChosenBy::Step, vec![Target { provider, model: request.model.clone() }]);
    }
    let of_tenant = policy.terms.policy.order.get(request.kind.as_str());
    let of_tenant = of_tenant.map(|names| names.iter().filter_map(|name| name.parse().ok()).collect::<Vec<Target>>());
    if let Some(order) = of_tenant.filter(|order| !order.is_empty()) {
        return (ChosenBy::Policy, order);
    }
    if let Some(order) = &policy.config.order {
        return (ChosenBy::Deployment, order.clone());
    }
    // Nobody asked for a server that is not configured.
    let is_known = |provider: &Provider| policy.config.base_url(*provider).is_some();
    (ChosenBy::Default, default_order(request.kind).into_iter().filter(is_known).map(Target::from).collect())
}

/// The models to ask. If all of them cool down, each is asked anyway, but once, rather than fail without a request. The same holds
/// for models without a price where a budget applies: the database says which budget that is.
pub(crate) fn plan(policy: &Policy<'_>, health: &Health<'_>, request: &Request, since_claim: Duration) -> Plan {
    let (chosen_by, targets) = targets(policy, request);
    let mut plan = Plan::default();
    for (position, target) in targets.into_iter().enumerate() {
        let provider = target.provider;
        let model = target.model.unwrap_or_else(|| policy.config.models.get(provider).clone());
        let is_duplicate = |planned: &Attempt| planned.provider == provider && planned.model == model;
        if plan.attempts.iter().any(is_duplicate) {
            continue;
        }
        if let Some((kind, reason)) = exclusion(policy, health, request, (provider, &model)) {
            plan.left_out.push(LeftOut { position, provider, model, kind, reason, retry_after: None });
            continue;
        }
        let key = health.keys.get(provider).cloned();
        let deployment = deployment(policy.config, provider, key.as_ref());
        let price = policy.prices.price(provider.as_str(), &model);
        let is_cooling = false;
        plan.attempts.push(Attempt { position, provider, model, key, deployment, price, chosen_by, is_cooling });
    }
    let is_unpriced = |attempt: &Attempt| {
        (policy.terms.is_budgeted && attempt.price.is_none())
            .then(|| (FaultKind::Unpriced, "a budget applies, and no price of the model is known".to_owned(), None))
    };
    plan.leave_out_unless_all(is_unpriced);
    let cooldown = |attempt: &Attempt| cooldown(health, attempt, since_claim);
    plan.leave_out_unless_all(cooldown);
    for attempt in &mut plan.attempts {
        attempt.is_cooling = cooldown(attempt).is_some();
    }
    plan
}

/// Identifies what can be rate limited or broken: a provider, its base URL and the key. 16 hex digits.
pub(crate) fn deployment(config: &CodegenConfig, provider: Provider, key: Option<&ApiKey>) -> String {
    let mut digest = Sha256::new();
    for part in [provider.as_str(), config.base_url(provider).unwrap_or_default(), key.map_or("", ApiKey::expose)] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    hex(&digest.finalize()[..8])
}

impl Plan {
    /// Leaves out the attempts for which `why` gives a reason, unless it gives one for each.
    fn leave_out_unless_all(&mut self, why: impl Fn(&Attempt) -> Option<(FaultKind, String, Option<Duration>)>) {
        if self.attempts.iter().all(|attempt| why(attempt).is_some()) {
            return;
        }
        for attempt in std::mem::take(&mut self.attempts) {
            match why(&attempt) {
                None => self.attempts.push(attempt),
                Some((kind, reason, retry_after)) => {
                    let Attempt { position, provider, model, .. } = attempt;
                    self.left_out.push(LeftOut { position, provider, model, kind, reason, retry_after });
                }
            }
        }
        self.left_out.sort_by_key(|left_out| left_out.position);
    }
}

/// Why a model cannot be asked at all.
fn exclusion(
    policy: &Policy<'_>,
    health: &Health<'_>,
    request: &Request,
    (provider, model): (Provider, &str),
) -> Option<(FaultKind, String)> {
    if !policy.terms.policy.allows(provider.as_str(), model) {
        return Some((FaultKind::NotAllowed, "the tenant's policy does not allow it".to_owned()));
    }
    if policy.config.base_url(provider).is_none() {
        return Some((FaultKind::NoKey, "OPENAI_COMPATIBLE_BASE_URL is not configured".to_owned()));
    }
    if model.is_empty() {
        return Some((FaultKind::NoKey, "OPENAI_COMPATIBLE_MODEL is not configured".to_owned()));
    }
    if health.keys.get(provider).is_none() && (provider.needs_key() || health.keys.is_malformed(provider)) {
        return Some((FaultKind::NoKey, health.keys.problem(provider)));
    }
    let problem = request.parameters.problem(provider)?;
    Some((FaultKind::Unsupported, problem.to_owned()))
}

fn cooldown(
    health: &Health<'_>,
    attempt: &Attempt,
    since_claim: Duration,
) -> Option<(FaultKind, String, Option<Duration>)> {
    let cooldown = health.cooldowns.iter().find(|cooldown| cooldown.deployment == attempt.deployment)?;
    let left = Duration::from_millis(cooldown.left_ms).checked_sub(since_claim).filter(|left| !left.is_zero())?;
    let kind = FaultKind::of_name(&cooldown.kind);
    Some((kind, format!("cooling down after: {}", cooldown.reason), Some(left)))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
