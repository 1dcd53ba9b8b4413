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
    pub prices: &'a PriceTable<'a>,
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
    if let Some(setting) = policy.config.missing_setting(provider, model) {
        return Some((FaultKind::NoKey, format!("{setting} is not configured")));
    }
    if health.keys.get(provider).is_none() && (provider.needs_key() || health.keys.is_malformed(provider)) {
        return Some((FaultKind::NoKey, health.keys.problem(provider)));
    }
    let problem = request.parameters.problem(provider)?;
    Some((FaultKind::Unsupported, problem.to_owned()))
}

/// The longest of the cooldowns of the model and of its deployment.
fn cooldown(
    health: &Health<'_>,
    attempt: &Attempt,
    since_claim: Duration,
) -> Option<(FaultKind, String, Option<Duration>)> {
    let of_attempt = health.cooldowns.iter().filter(|cooldown| cooldown.is_of(&attempt.deployment, &attempt.model));
    let cooldown = of_attempt.max_by_key(|cooldown| cooldown.left_ms)?;
    let left = Duration::from_millis(cooldown.left_ms).checked_sub(since_claim).filter(|left| !left.is_zero())?;
    let kind = FaultKind::of_name(&cooldown.kind);
    Some((kind, format!("cooling down after: {}", cooldown.reason), Some(left)))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::{Value, json};
    use shared::domain::model_policy::{ModelPolicy, PolicyPrice};

    use super::*;
    use crate::provider::PerProvider;

    const SECRET: &str = r#"{"OPENAI_API_KEY":"o","ANTHROPIC_API_KEY":"a","GEMINI_API_KEY":"g"}"#;

    fn config() -> CodegenConfig {
        let compatible = Some("http://127.0.0.1:9/v1".to_owned());
        let base_urls = PerProvider { compatible, ..PerProvider::default() };
        let mut config = CodegenConfig { base_urls, ..CodegenConfig::default() };
        config.models.compatible = "qwen3".to_owned();
        config.checked().unwrap()
    }

    struct World {
        config: CodegenConfig,
        terms: ModelTerms,
        keys: ProviderKeys,
        cooldowns: Vec<DeploymentCooldown>,
    }

    impl World {
        fn new() -> Self {
            let keys = ProviderKeys::from_secret(SECRET).unwrap();
            Self { config: config(), terms: ModelTerms::default(), keys, cooldowns: Vec::new() }
        }

        fn cool(&mut self, provider: Provider, kind: &str, left_ms: u64) {
            let deployment = deployment(&self.config, provider, self.keys.get(provider));
            let (kind, reason) = (kind.to_owned(), "503".to_owned());
            self.cooldowns.push(DeploymentCooldown { deployment, left_ms, kind, reason });
        }

        fn plan(&self, inputs: &Value, since_claim_ms: u64) -> Plan {
            let prices = self.terms.policy.price_table(1);
            let policy = Policy { config: &self.config, terms: &self.terms, prices: &prices };
            let health = Health { keys: &self.keys, cooldowns: &self.cooldowns };
            plan(&policy, &health, &Request::parse(inputs).unwrap(), Duration::from_millis(since_claim_ms))
        }

        fn order(&self, inputs: &Value) -> Vec<String> {
            names(&self.plan(inputs, 0))
        }
    }

    fn names(plan: &Plan) -> Vec<String> {
        plan.attempts.iter().map(|attempt| format!("{}/{}", attempt.provider, attempt.model)).collect()
    }

    fn left_out(plan: &Plan) -> Vec<(&'static str, &'static str)> {
        plan.left_out.iter().map(|left_out| (left_out.provider.as_str(), left_out.kind.as_str())).collect()
    }

    const PROMPT: &str = "p";

    #[test]
    fn the_kind_decides_unless_somebody_does() {
        let mut world = World::new();
        let [openai, anthropic, gemini] =
            ["openai/gpt-6-luna", "anthropic/claude-sonnet-5-5", "gemini/gemini-3.8-flash"];
        let qwen = "openai_compatible/qwen3";
        let of = |kind| json!({ "prompt": PROMPT, "kind": kind });
        assert_eq!(world.order(&of("codegen")), [openai, anthropic, gemini, qwen]);
        assert_eq!(world.order(&of("reasoning")), [anthropic, openai, gemini, qwen]);
        assert_eq!(world.order(&of("docs")), [gemini, openai, anthropic, qwen]);
        world.config.order = Target::parse_order("gemini/g-1,openai,gemini").unwrap();
        assert_eq!(world.order(&of("docs")), ["gemini/g-1", openai, gemini]);
        world.terms.policy.order = [("docs".to_owned(), vec!["openai_compatible".to_owned()])].into();
        assert_eq!(world.order(&of("docs")), [qwen]);
        assert_eq!(world.order(&of("codegen")), ["gemini/g-1", openai, gemini], "the policy says nothing about code");
        assert_eq!(world.order(&json!({ "prompt": PROMPT, "provider": "anthropic" })), [anthropic]);
        assert_eq!(world.order(&json!({ "prompt": PROMPT, "model": "claude-x" })), ["anthropic/claude-x"]);
    }

    #[test]
    fn whatever_cannot_be_asked_is_left_out_with_a_reason() {
        let mut world = World::new();
        world.keys = ProviderKeys::from_secret(r#"{"OPENAI_API_KEY":"o","ANTHROPIC_API_KEY":"a"}"#).unwrap();
        world.terms.policy.allow = Some(vec!["anthropic".into(), "gemini".into(), "openai_compatible/other".into()]);
        let plan = world.plan(&json!({ "prompt": PROMPT, "temperature": 1.5 }), 0);
        assert_eq!(names(&plan), [""; 0]);
        let expected = [
            ("gemini", "no_key"),
            ("openai", "not_allowed"),
            ("anthropic", "unsupported"),
            ("openai_compatible", "not_allowed"),
        ];
        assert_eq!(left_out(&plan), expected);
        world.terms.policy = ModelPolicy::default();
        (world.config.models.compatible, world.config.order) = (String::new(), None);
        let plan = world.plan(&json!({ "prompt": PROMPT, "kind": "codegen" }), 0);
        assert_eq!(left_out(&plan), [("gemini", "no_key"), ("openai_compatible", "no_key")]);
        assert_eq!(plan.left_out[1].reason, "OPENAI_COMPATIBLE_MODEL is not configured");
        world.config.base_urls.compatible = None;
        let plan = world.plan(&json!({ "prompt": PROMPT, "provider": "openai_compatible", "model": "m" }), 0);
        assert_eq!(plan.left_out[0].reason, "OPENAI_COMPATIBLE_BASE_URL is not configured");
    }

    #[test]
    fn a_cooling_deployment_is_skipped_until_its_cooldown_ends_or_all_cool_down() {
        let mut world = World::new();
        world.config.order = Target::parse_order("openai,anthropic").unwrap();
        world.cool(Provider::OpenAi, "billing", 5000);
        let inputs = || json!({ "prompt": PROMPT });
        let plan = world.plan(&inputs(), 1000);
        assert_eq!(names(&plan), ["anthropic/claude-sonnet-5-5"]);
        let [skipped] = plan.left_out.as_slice() else { panic!("one is skipped") };
        assert_eq!((skipped.kind, skipped.reason.as_str()), (FaultKind::Billing, "cooling down after: 503"));
        assert_eq!((skipped.retry_after, skipped.position), (Some(Duration::from_secs(4)), 0));
        assert_eq!(names(&world.plan(&inputs(), 5000)).len(), 2, "it is over");
        world.cool(Provider::Anthropic, "transient", 9000);
        assert_eq!(names(&world.plan(&inputs(), 0)).len(), 2, "they are asked anyway");
        for (model, left_ms) in [("claude-sonnet-5-5", 12_000), ("another", 20_000)] {
            world.cool(Provider::Anthropic, "transient", left_ms);
            world.cooldowns.last_mut().unwrap().deployment.extend(["/", model]);
        }
        let health = Health { keys: &world.keys, cooldowns: &world.cooldowns };
        let longest = cooldown(&health, &world.plan(&inputs(), 0).attempts[1], Duration::ZERO);
        assert_eq!(longest.unwrap().2, Some(Duration::from_secs(12)));
        // Another key is another deployment.
        world.keys = ProviderKeys::from_secret(r#"{"OPENAI_API_KEY":"new","ANTHROPIC_API_KEY":"a"}"#).unwrap();
        assert_eq!(names(&world.plan(&inputs(), 0)), ["openai/gpt-6-luna"]);
    }

    #[test]
    fn a_model_without_a_price_is_left_out_only_where_a_budget_applies() {
        let mut world = World::new();
        world.config.order = Target::parse_order("openai_compatible,openai").unwrap();
        assert_eq!(world.order(&json!({ "prompt": PROMPT })).len(), 2);
        world.terms.is_budgeted = true;
        let plan = world.plan(&json!({ "prompt": PROMPT }), 0);
        assert_eq!(
            (names(&plan), left_out(&plan)),
            (vec!["openai/gpt-6-luna".to_owned()], vec![("openai_compatible", "unpriced")])
        );
        assert_eq!(plan.attempts[0].price.as_ref().unwrap().version, PriceTable::builtin_version());
        // The database says which budget it is.
        assert_eq!(world.order(&json!({ "prompt": PROMPT, "provider": "openai_compatible" })).len(), 1);
        let price =
            PolicyPrice { provider: "openai_compatible".into(), model: "qwen3".into(), ..PolicyPrice::default() };
        world.terms.policy.prices = vec![price];
        assert_eq!(world.order(&json!({ "prompt": PROMPT })).len(), 2);
    }

    #[test]
    fn a_deployment_is_a_provider_a_url_and_a_key_and_shows_none_of_them() {
        let World { mut config, keys, .. } = World::new();
        let key = |provider| keys.get(provider);
        let one = deployment(&config, Provider::OpenAi, key(Provider::OpenAi));
        assert!(one.len() == 16 && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(one, deployment(&config, Provider::OpenAi, key(Provider::OpenAi)));
        assert_ne!(one, deployment(&config, Provider::OpenAi, key(Provider::Gemini)));
        assert_ne!(one, deployment(&config, Provider::Anthropic, key(Provider::OpenAi)));
        config.base_urls.openai = Some("http://127.0.0.1:9/v1/".to_owned());
        assert_ne!(one, deployment(&config, Provider::OpenAi, key(Provider::OpenAi)));
    }

    /// `cargo nextest run -p codegen time_of_a_decision --run-ignored all --no-capture`.
    #[test]
    #[ignore = "a measurement"]
    fn time_of_a_decision() {
        let request = Request::parse(&json!({ "prompt": PROMPT })).unwrap();
        for (prices, cooldowns) in [(0, 3), (500, 100)] {
            let mut world = World::new();
            let price = |at: usize| PolicyPrice {
                provider: "openai".into(),
                model: format!("m-{at}"),
                ..PolicyPrice::default()
            };
            world.terms.policy.prices = (0..prices).map(price).collect();
            world.terms.is_budgeted = true;
            for at in 0..cooldowns {
                let deployment = format!("{at:016x}");
                world.cooldowns.push(DeploymentCooldown {
                    deployment,
                    left_ms: 1,
                    kind: "auth".into(),
                    reason: "401".into(),
                });
            }
            let decide = |times: u32| {
                let started = Instant::now();
                for _ in 0..times {
                    let prices = world.terms.policy.price_table(1);
                    let policy = Policy { config: &world.config, terms: &world.terms, prices: &prices };
                    let health = Health { keys: &world.keys, cooldowns: &world.cooldowns };
                    assert_eq!(plan(&policy, &health, &request, Duration::ZERO).attempts.len(), 3);
                }
                started.elapsed() / times
            };
            decide(10);
            println!(
                "a decision with {prices} prices of the tenant and {cooldowns} cooldowns takes {:?}",
                decide(1000)
            );
        }
    }
}
