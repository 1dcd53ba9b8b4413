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
    let [openai, anthropic, gemini] = ["openai/gpt-6-luna", "anthropic/claude-sonnet-5-5", "gemini/gemini-3.8-flash"];
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
    let price = PolicyPrice { provider: "openai_compatible".into(), model: "qwen3".into(), ..PolicyPrice::default() };
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

/// `cargo test --release -p codegen -- --ignored --nocapture decision`.
#[test]
#[ignore = "a measurement"]
fn time_of_a_decision() {
    let mut world = World::new();
    let price =
        |at: usize| PolicyPrice { provider: "openai".into(), model: format!("m-{at}"), ..PolicyPrice::default() };
    world.terms.policy.prices = (0..500).map(price).collect();
    world.terms.policy.allow = Some((0..499).map(|at| format!("openai/m-{at}")).chain(["gemini".into()]).collect());
    world.terms.is_budgeted = true;
    for at in 0..100 {
        let deployment = format!("{at:016x}");
        world.cooldowns.push(DeploymentCooldown { deployment, left_ms: 1, kind: "auth".into(), reason: "401".into() });
    }
    let request = Request::parse(&json!({ "prompt": PROMPT })).unwrap();
    let decide = |times: u32| {
        let started = Instant::now();
        for _ in 0..times {
            let prices = world.terms.policy.price_table(1);
            let policy = Policy { config: &world.config, terms: &world.terms, prices: &prices };
            let health = Health { keys: &world.keys, cooldowns: &world.cooldowns };
            assert_eq!(plan(&policy, &health, &request, Duration::ZERO).attempts.len(), 1);
        }
        started.elapsed() / times
    };
    decide(10);
    println!("a decision with 500 prices, 500 allowed models and 100 cooldowns takes {:?}", decide(1000));
}
