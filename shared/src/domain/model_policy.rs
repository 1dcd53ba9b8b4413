//! The part `models` of a policy: which models a tenant may call, in which order, at which prices, and for how much money.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields::{Fields, Most, Names};
use super::money::{MicroUsd, USD};
use super::price::{ModelPrice, Price, PriceTable};

/// What a policy says about models.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModelPolicy {
    /// The providers to ask for each kind of task, best first. A kind without an order has that of the deployment.
    pub order: BTreeMap<String, Vec<String>>,
    /// Prices of models. They replace those of the release.
    pub prices: Vec<PolicyPrice>,
    /// The most that the tenant may spend.
    pub budgets: ModelBudgets,
    /// The only providers (`openai`) and models (`openai/gpt-6-luna`) that may be asked. Null for all.
    pub allow: Option<Vec<String>>,
    /// The public key (PEM) for which prompts and answers are encrypted and kept. Null: they are not kept.
    pub keep_prompts: Option<String>,
}

/// The most that all runs of a tenant may spend together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModelBudgets {
    /// In a day (UTC), in micro-dollars.
    pub day_usd_micros: Option<MicroUsd>,
    /// In a month (UTC), in micro-dollars.
    pub month_usd_micros: Option<MicroUsd>,
}

/// The price of a model in micro-dollars per million tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyPrice {
    pub provider: String,
    pub model: String,
    pub input: u64,
    pub output: u64,
    pub cached_input: Option<u64>,
    pub cache_write: Option<u64>,
}

/// Fields of `models`.
pub const FIELDS: &[Names] = &[&["order"], &["prices"], &["budgets"], &["allow"], &["keep_prompts"]];
/// Kinds of tasks.
pub const KINDS: &[&str] = &["codegen", "reasoning", "docs"];
/// Fields of `models.order`.
pub const ORDER_FIELDS: &[Names] = &[&["codegen"], &["reasoning"], &["docs"]];
/// Fields of an entry of `models.prices`.
pub const PRICE_FIELDS: &[Names] = &[
    &["provider"],
    &["model"],
    &["input_usd_per_mtok"],
    &["output_usd_per_mtok"],
    &["cached_input_usd_per_mtok"],
    &["cache_write_usd_per_mtok"],
];
/// Fields of `models.budgets`.
pub const BUDGET_FIELDS: &[Names] = &[&["day_usd"], &["month_usd"]];
/// Providers of models.
pub const PROVIDERS: &[&str] = &["openai", "anthropic", "gemini", "openai_compatible"];
/// Maximum number of prices, and of entries of `allow`.
pub const MAX_ENTRIES: usize = 500;
/// Maximum length of the name of a model.
pub const MAX_MODEL_BYTES: usize = 100;
/// A longer text is no P-256 key.
const MAX_KEY_BYTES: usize = 1_000;
/// The largest budget and the largest price, in dollars.
pub const MAX_USD: i64 = 1_000_000;

impl ModelPolicy {
    /// Whether the policy allows this model.
    pub fn allows(&self, provider: &str, model: &str) -> bool {
        let is_named = |entry: &String| match entry.split_once('/') {
            None => entry == provider,
            Some((of, name)) => of == provider && name == model,
        };
        self.allow.as_ref().is_none_or(|allowed| allowed.iter().any(is_named))
    }

    /// The prices that count for the tenant. `version` is that of the policy.
    pub fn price_table(&self, version: u32) -> PriceTable<'_> {
        PriceTable::builtin().with(self.prices.iter().map(PolicyPrice::model_price), version)
    }
}

impl PolicyPrice {
    fn model_price(&self) -> ModelPrice<'_> {
        let &Self { ref provider, ref model, input, output, cached_input, cache_write } = self;
        let price = Price { input, output, cached_input, cache_write, ..Price::default() };
        ModelPrice { provider, model, price }
    }
}

/// Reads the part `models` of a policy.
pub(super) fn models(fields: &mut Fields<'_, '_>) -> ModelPolicy {
    let order = fields.object("order", ORDER_FIELDS, order).unwrap_or_default();
    let listed = fields.read("prices", |value| {
        let entries = value.as_array().filter(|entries| entries.len() <= MAX_ENTRIES);
        entries.ok_or_else(|| format!("must be a list of at most {MAX_ENTRIES} prices"))
    });
    let prices = fields.objects("prices", listed.map(Vec::as_slice).unwrap_or_default(), PRICE_FIELDS, price);
    for (at, price) in prices.iter().enumerate() {
        let is_same = |other: &PolicyPrice| other.provider == price.provider && other.model == price.model;
        if !price.model.is_empty() && prices[..at].iter().any(is_same) {
            let message = format!("{}/{} has a price already; give one for each model", price.provider, price.model);
            fields.problem_at("prices", at, message);
        }
    }
    let budgets = fields.object("budgets", BUDGET_FIELDS, |fields| ModelBudgets {
        day_usd_micros: fields.read("day_usd", budget),
        month_usd_micros: fields.read("month_usd", budget),
    });
    let allow = fields.value("allow").is_some().then(|| fields.list("allow", MAX_ENTRIES, allowed));
    let keep_prompts = fields.filled("keep_prompts", Most::Bytes(MAX_KEY_BYTES)).map(str::to_owned);
    ModelPolicy { order, prices, budgets: budgets.unwrap_or_default(), allow, keep_prompts }
}

fn order(fields: &mut Fields<'_, '_>) -> BTreeMap<String, Vec<String>> {
    let mut order = BTreeMap::new();
    for kind in KINDS {
        if fields.value(kind).is_none() {
            continue;
        }
        let providers = fields.list(kind, PROVIDERS.len(), provider);
        if providers.is_empty() {
            fields.problem(kind, "must name at least one provider");
        }
        if let Some(at) = (1..providers.len()).find(|at| providers[..*at].contains(&providers[*at])) {
            fields.problem_at(kind, at, "is named twice");
        }
        order.insert((*kind).to_owned(), providers);
    }
    order
}

fn price(fields: &mut Fields<'_, '_>) -> PolicyPrice {
    fields.require(&["provider", "model", "input_usd_per_mtok", "output_usd_per_mtok"]);
    PolicyPrice {
        provider: fields.read("provider", provider).unwrap_or_default(),
        model: fields
            .read("model", |value| value.as_str().ok_or_else(model_problem).and_then(model))
            .unwrap_or_default(),
        input: fields.read("input_usd_per_mtok", per_mtok).unwrap_or_default(),
        output: fields.read("output_usd_per_mtok", per_mtok).unwrap_or_default(),
        cached_input: fields.read("cached_input_usd_per_mtok", per_mtok),
        cache_write: fields.read("cache_write_usd_per_mtok", per_mtok),
    }
}

fn provider(value: &Value) -> Result<String, String> {
    let known = value.as_str().filter(|name| PROVIDERS.contains(name)).map(str::to_owned);
    known.ok_or_else(|| format!("must be one of {}", PROVIDERS.join(", ")))
}

fn model(name: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
    let is_model = !name.is_empty() && name.len() <= MAX_MODEL_BYTES && name.bytes().all(is_allowed);
    if is_model { Ok(name.to_owned()) } else { Err(model_problem()) }
}

fn model_problem() -> String {
    format!("must be a model: 1 to {MAX_MODEL_BYTES} characters of A-Z, a-z, 0-9 and ._-:/")
}

fn allowed(value: &Value) -> Result<String, String> {
    let wrong = || format!("must be a provider ({}) or PROVIDER/MODEL", PROVIDERS.join(", "));
    let text = value.as_str().ok_or_else(wrong)?;
    let (of, name) = text.split_once('/').map_or((text, None), |(of, name)| (of, Some(name)));
    if !PROVIDERS.contains(&of) {
        return Err(wrong());
    }
    name.map(model).transpose()?;
    Ok(text.to_owned())
}

/// Dollars from 0: with 0 nothing may be spent.
fn budget(value: &Value) -> Result<MicroUsd, String> {
    let amount = MicroUsd::of_dollars(value).filter(|amount| amount.0 <= MAX_USD * USD);
    amount.ok_or_else(|| format!("must be dollars from 0 to {MAX_USD} with at most 6 decimals, such as \"25.00\""))
}

/// Dollars per million tokens. They have as many micro-dollars as a token has pico-dollars.
fn per_mtok(value: &Value) -> Result<u64, String> {
    let amount = MicroUsd::of_dollars(value).filter(|amount| amount.0 <= MAX_USD * USD);
    amount.and_then(|amount| u64::try_from(amount.0).ok()).ok_or_else(|| {
        format!("must be dollars per million tokens from 0 to {MAX_USD} with at most 6 decimals, such as \"2.50\"")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::policy::Policy;
    use super::*;

    fn read(models: &Value) -> Result<ModelPolicy, Vec<String>> {
        let read = Policy::parse(&json!({ "models": models }), "document");
        read.map(|policy| policy.models).map_err(|problems| problems.into_iter().map(|problem| problem.path).collect())
    }

    #[test]
    fn a_whole_document_is_read_exactly() {
        let policy = read(&json!({
            "order": {"docs": ["gemini", "openai"], "codegen": null},
            "prices": [
                {"provider": "openai_compatible", "model": "qwen3-coder:30b", "input_usd_per_mtok": 0, "output_usd_per_mtok": "0.00"},
                {"provider": "openai", "model": "gpt-6-luna", "input_usd_per_mtok": 0.11, "output_usd_per_mtok": "1.234567",
                 "cached_input_usd_per_mtok": "0.011", "cache_write_usd_per_mtok": null},
            ],
            "budgets": {"day_usd": "25.50", "month_usd": 100},
            "allow": ["gemini", "openai/gpt-6-luna", "openai_compatible/org/model"],
        }))
        .unwrap();
        assert_eq!(policy.order, BTreeMap::from([("docs".to_owned(), vec!["gemini".to_owned(), "openai".to_owned()])]));
        assert_eq!(policy.budgets.day_usd_micros, Some(MicroUsd(25_500_000)));
        assert_eq!(policy.budgets.month_usd_micros, Some(MicroUsd(100_000_000)));
        let own = policy.price_table(3).price("openai", "gpt-6-luna").unwrap();
        let expected = Price { input: 110_000, output: 1_234_567, cached_input: Some(11_000), ..Price::default() };
        assert_eq!((own.version.as_str(), own.price), ("policy-3", expected));
        let local = policy.price_table(3).price("openai_compatible", "qwen3-coder:30b").unwrap();
        assert_eq!(local.price.ceiling(9_000, 9_000), MicroUsd::ZERO);
        for (provider, model, allowed) in [
            ("gemini", "gemini-3.8-flash", true),
            ("openai", "gpt-6-luna", true),
            ("openai", "gpt-6-sol", false),
            ("openai_compatible", "org/model", true),
            ("anthropic", "gpt-6-luna", false),
        ] {
            assert_eq!(policy.allows(provider, model), allowed, "{provider}/{model}");
        }
        assert!(ModelPolicy::default().allows("anything", "at-all"));
        assert!(!read(&json!({ "allow": [] })).unwrap().allows("openai", "gpt-6-luna"), "an empty list allows nothing");
    }

    #[test]
    fn every_wrong_field_is_reported_with_its_path() {
        let price = |field: &str, value: Value| {
            let mut price =
                json!({"provider": "openai", "model": "m", "input_usd_per_mtok": 1, "output_usd_per_mtok": 1});
            price[field] = value;
            json!({ "prices": [price] })
        };
        for (models, path) in [
            (json!({"orders": {}}), "orders"),
            (json!({"order": {"code": ["openai"]}}), "order.code"),
            (json!({"order": {"docs": ["openai", "openia"]}}), "order.docs[1]"),
            (json!({"order": {"docs": ["openai", "openai"]}}), "order.docs[1]"),
            (json!({"order": {"docs": []}}), "order.docs"),
            (json!({"budgets": {"day_usd": -1}}), "budgets.day_usd"),
            (json!({"budgets": {"day_usd": "0.0000001"}}), "budgets.day_usd"),
            (json!({"budgets": {"month_usd": 1_000_001}}), "budgets.month_usd"),
            (json!({"budgets": {"week_usd": 1}}), "budgets.week_usd"),
            (json!({"allow": "openai"}), "allow"),
            (json!({"keep_prompts": true}), "keep_prompts"),
            (json!({"keep_prompts": "x".repeat(1_001)}), "keep_prompts"),
            (json!({"allow": ["openai", "gpt-6-luna"]}), "allow[1]"),
            (json!({"allow": ["openai/"]}), "allow[0]"),
            (json!({"prices": {}}), "prices"),
            (price("provider", json!("azure")), "prices[0].provider"),
            (price("model", json!("a b")), "prices[0].model"),
            (price("input_usd_per_mtok", json!("free")), "prices[0].input_usd_per_mtok"),
            (price("output_usd_per_mtok", json!(null)), "prices[0].output_usd_per_mtok"),
            (price("cache_write_usd_per_mtok", json!(-1)), "prices[0].cache_write_usd_per_mtok"),
            (price("unit", json!(1)), "prices[0].unit"),
        ] {
            assert_eq!(read(&models), Err(vec![format!("document.models.{path}")]), "{models}");
        }
        let twice = price("model", json!("m"))["prices"][0].clone();
        assert_eq!(read(&json!({ "prices": [twice, twice] })), Err(vec!["document.models.prices[1]".to_owned()]));
    }
}
