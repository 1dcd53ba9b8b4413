//! Prices of models: a versioned table as data, which a tenant's policy can extend and correct.
//!
//! Prices are whole micro-dollars per million tokens, which is the same as pico-dollars per token.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::money::MicroUsd;
use super::token_usage::TokenUsage;

/// The table that the release contains. Its licence and source are in the file.
const BUILTIN: &str = include_str!("../../data/model_prices.json");
/// sha256 of the table. Whoever changes the file changes this and the file's version too.
pub const BUILTIN_SHA256: &str = "788792e41e95a72ef0bb4dcff69c3199a227cf55e8f59879351eb7cbd8a0a7b4";

/// Tokens that a provider may add around what was sent.
const WRAPPING_TOKENS: u64 = 256;
/// Prices are per this many tokens.
const PER_TOKENS: u128 = 1_000_000;

/// What a model costs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    pub input: u64,
    pub output: u64,
    /// Tokens read from a cache. Without it they cost as much as others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<u64>,
    /// Tokens written to a cache. Without it they cost as much as others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<u64>,
    /// Reasoning tokens. Without it they cost as much as others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
    /// Dearer prices of requests with more input tokens, by ascending number of tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub above: Vec<Tier>,
}

/// Prices of a whole request that has more than `tokens` input tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    pub tokens: u64,
    pub input: u64,
    pub output: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
}

/// A price, and the version of the table that it is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceRef {
    /// The date of the built-in table, or `policy-N` for version N of the tenant's policy.
    pub version: String,
    #[serde(flatten)]
    pub price: Price,
}

/// A price of a tenant's policy. It replaces the built-in one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelPrice<'a> {
    pub provider: &'a str,
    pub model: &'a str,
    pub price: Price,
}

/// The prices that count for a tenant.
#[derive(Debug, Clone, Default)]
pub struct PriceTable<'a> {
    /// The tenant's prices, by provider and model. They have the version of its policy.
    own: BTreeMap<(&'a str, &'a str), Price>,
    policy: u32,
}

#[derive(Debug, Deserialize)]
struct Builtin {
    version: String,
    models: BTreeMap<String, BTreeMap<String, Price>>,
}

/// A test parses the file, so it is never empty.
static TABLE: LazyLock<Builtin> = LazyLock::new(|| {
    serde_json::from_str(BUILTIN).unwrap_or_else(|_| Builtin { version: String::new(), models: BTreeMap::new() })
});

impl<'a> PriceTable<'a> {
    /// The prices of the release.
    pub fn builtin() -> Self {
        Self::default()
    }

    /// The version of the built-in prices.
    pub fn builtin_version() -> &'static str {
        &TABLE.version
    }

    /// The prices with those of version `policy` of a tenant's policy, which replace built-in ones.
    #[must_use]
    pub fn with(self, prices: impl IntoIterator<Item = ModelPrice<'a>>, policy: u32) -> Self {
        let own = prices.into_iter().map(|ModelPrice { provider, model, price }| ((provider, model), price)).collect();
        Self { own, policy }
    }

    /// The price of a model by its exact name. A fine-tuned model `ft:BASE:..` costs what `ft:BASE` does.
    pub fn price(&self, provider: &str, model: &str) -> Option<PriceRef> {
        self.exact(provider, model).or_else(|| {
            let base = model.strip_prefix("ft:")?.split(':').next()?;
            self.exact(provider, &format!("ft:{base}"))
        })
    }

    fn exact(&self, provider: &str, model: &str) -> Option<PriceRef> {
        let own = self.own.get(&(provider, model)).cloned();
        own.map(|price| PriceRef { version: format!("policy-{}", self.policy), price }).or_else(|| {
            let price = TABLE.models.get(provider)?.get(model)?.clone();
            Some(PriceRef { version: TABLE.version.clone(), price })
        })
    }
}

impl Price {
    /// The most that a request can cost: every byte may be a token, at the dearest prices that so many tokens can have.
    /// Rounded up.
    pub fn ceiling(&self, input_bytes: usize, max_output_tokens: u32) -> MicroUsd {
        let input = u64::try_from(input_bytes).unwrap_or(u64::MAX).saturating_add(WRAPPING_TOKENS);
        let reached =
            || std::iter::once(self.base()).chain(self.above.iter().filter(|tier| tier.tokens < input).cloned());
        let dearest_input = reached().map(|tier| tier.dearest_input()).max().unwrap_or_default();
        let dearest_output = reached().map(|tier| tier.output.max(tier.reasoning.unwrap_or_default())).max();
        let output = u64::from(max_output_tokens);
        rounded_up(product(input, dearest_input) + product(output, dearest_output.unwrap_or_default()))
    }

    /// What these tokens cost, exactly, rounded up once. `None` if the provider did not report both totals. Cached,
    /// written and reasoning tokens are parts of the totals.
    pub fn cost(&self, usage: &TokenUsage) -> Option<MicroUsd> {
        let (input, output) = (usage.input_tokens?, usage.output_tokens?);
        let written = usage.cache_write_input_tokens.unwrap_or_default().min(input);
        let cached = usage.cached_input_tokens.unwrap_or_default().min(input - written);
        let reasoning = usage.reasoning_tokens.unwrap_or_default().min(output);
        let tier = self.above.iter().rev().find(|tier| input > tier.tokens).cloned().unwrap_or_else(|| self.base());
        Some(rounded_up(
            product(input - written - cached, tier.input)
                + product(cached, tier.cached_input.unwrap_or(tier.input))
                + product(written, tier.cache_write.unwrap_or(tier.input))
                + product(output - reasoning, tier.output)
                + product(reasoning, tier.reasoning.unwrap_or(tier.output)),
        ))
    }

    fn base(&self) -> Tier {
        let Self { input, output, cached_input, cache_write, reasoning, .. } = *self;
        Tier { tokens: 0, input, output, cached_input, cache_write, reasoning }
    }
}

impl Tier {
    fn dearest_input(&self) -> u64 {
        self.input.max(self.cached_input.unwrap_or_default()).max(self.cache_write.unwrap_or_default())
    }
}

fn product(tokens: u64, price: u64) -> u128 {
    u128::from(tokens) * u128::from(price)
}

fn rounded_up(pico_dollars: u128) -> MicroUsd {
    MicroUsd(i64::try_from(pico_dollars.div_ceil(PER_TOKENS)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::digest::sha256_hex;

    fn usage(input: u64, cached: u64, written: u64, output: u64, reasoning: u64) -> TokenUsage {
        TokenUsage {
            input_tokens: Some(input),
            output_tokens: Some(output),
            cached_input_tokens: Some(cached),
            cache_write_input_tokens: Some(written),
            reasoning_tokens: Some(reasoning),
        }
    }

    fn price(provider: &str, model: &str) -> Price {
        PriceTable::builtin().price(provider, model).unwrap_or_else(|| panic!("no price of {model}")).price
    }

    #[test]
    fn the_builtin_table_is_the_file_of_its_digest() {
        assert_eq!(
            sha256_hex(BUILTIN.as_bytes()),
            BUILTIN_SHA256,
            "a changed table needs a new version and a new digest"
        );
        let table: Builtin = serde_json::from_str(BUILTIN).unwrap();
        assert_eq!(table.models.keys().collect::<Vec<_>>(), ["anthropic", "gemini", "openai"]);
        assert!(table.models.values().map(BTreeMap::len).sum::<usize>() >= 150);
        for (provider, models) in &table.models {
            for (model, price) in models {
                assert!(price.input > 0 && price.output > 0, "{provider}/{model}");
                assert!(price.above.is_sorted_by(|a, b| a.tokens < b.tokens), "{provider}/{model}");
            }
        }
    }

    /// Computed by hand from the published prices per million tokens.
    #[test]
    fn costs_are_exact_for_each_provider() {
        // OpenAI: 0.10 in, 0.01 cached, 0.50 out. 1,000 plain, 500 cached, 300 out:
        // 100 + 5 + 150 = 255 micro-dollars.
        assert_eq!(price("openai", "gpt-6-luna").cost(&usage(1_500, 500, 0, 300, 120)), Some(MicroUsd(255)));
        // Anthropic: 2.00 in, 0.10 read, 2.50 written, 10.00 out. 10 plain, 2,000 read, 400 written, 77 out:
        // 20 + 200 + 1,000 + 770 = 1,990.
        assert_eq!(
            price("anthropic", "claude-sonnet-5-5").cost(&usage(2_410, 2_000, 400, 77, 0)),
            Some(MicroUsd(1_990))
        );
        // Gemini: 0.75 in, 0.075 cached, 3.75 out. 101 plain, 3 cached, 9 out of which 5 are thoughts:
        // 75.75 + 0.225 + 33.75 = 109.725, rounded up once.
        assert_eq!(price("gemini", "gemini-3.8-flash").cost(&usage(104, 3, 0, 9, 5)), Some(MicroUsd(110)));
    }

    #[test]
    fn a_dearer_tier_counts_for_the_whole_request() {
        let pro = price("gemini", "gemini-2.5-pro");
        assert_eq!(pro.cost(&usage(200_000, 0, 0, 1_000, 0)), Some(MicroUsd(250_000 + 10_000)));
        assert_eq!(
            pro.cost(&usage(200_001, 0, 0, 1_000, 0)),
            Some(MicroUsd(500_003 + 15_000)),
            "500,002.5 is rounded up"
        );
        let luna = price("openai", "gpt-6-luna");
        assert_eq!(luna.cost(&usage(272_001, 272_001, 0, 0, 0)), Some(MicroUsd(5_441)), "5,440.02 is rounded up");
    }

    #[test]
    fn unknown_totals_have_no_cost_and_odd_parts_are_not_counted_twice() {
        let price = price("openai", "gpt-6-luna");
        assert_eq!(price.cost(&TokenUsage { output_tokens: None, ..usage(1, 0, 0, 0, 0) }), None);
        assert_eq!(price.cost(&TokenUsage { input_tokens: None, ..usage(0, 0, 0, 1, 0) }), None);
        assert_eq!(
            price.cost(&TokenUsage { cached_input_tokens: None, ..usage(1_000, 0, 0, 0, 0) }),
            Some(MicroUsd(100))
        );
        assert_eq!(price.cost(&usage(1_000, 9_000, 0, 10, 90)), Some(MicroUsd(10 + 5)), "no more parts than the whole");
        assert_eq!(
            price.cost(&usage(u32::MAX.into(), 0, 0, u32::MAX.into(), 0)),
            Some(MicroUsd(858_993_459 + 3_221_225_472))
        );
    }

    #[test]
    fn a_tenants_price_replaces_the_builtin_one() {
        let price = Price { input: 7, output: 9, ..Price::default() };
        let own = ["gpt-6-luna", "house-model"];
        let own = own.map(|model| ModelPrice { provider: "openai", model, price: price.clone() });
        let table = PriceTable::builtin().with(own, 4);
        for model in ["gpt-6-luna", "house-model"] {
            let found = table.price("openai", model).unwrap();
            assert_eq!((found.version.as_str(), found.price.input), ("policy-4", 7));
        }
        assert_eq!(table.price("anthropic", "house-model"), None);
        let untouched = table.price("openai", "gpt-6-sol").unwrap();
        assert_eq!(untouched.version, PriceTable::builtin_version());
        assert_eq!(untouched.version, "2026-11-29");
    }

    #[test]
    fn fine_tuned_models_cost_what_their_base_does() {
        let table = PriceTable::builtin();
        let base = table.price("openai", "ft:gpt-4.1-2025-04-14").unwrap();
        assert_eq!(table.price("openai", "ft:gpt-4.1-2025-04-14:acme::x1"), Some(base));
        assert_eq!(table.price("openai", "ft:unknown:acme::x1"), None);
        assert_eq!(table.price("openai", "gpt-6-luna-2026"), None, "only exact names have a price");
    }

    proptest! {
        /// Whatever a provider reports within the bytes that were sent and the tokens that were allowed, it is covered.
        #[test]
        fn a_ceiling_covers_every_usage_below_it(
            bytes in 0usize..400_000, max_output in 0u32..200_000, cached in 0u64..400_000, written in 0u64..400_000,
            reasoning in 0u64..200_000, less_in in 0u64..400_000, less_out in 0u64..200_000, which in 0usize..200,
        ) {
            let all: Vec<_> = TABLE.models.values().flat_map(BTreeMap::values).collect();
            let price = all[which % all.len()];
            let input = (bytes as u64 + WRAPPING_TOKENS).saturating_sub(less_in);
            let output = u64::from(max_output).saturating_sub(less_out);
            let cost = price.cost(&usage(input, cached, written, output, reasoning)).unwrap();
            prop_assert!(cost <= price.ceiling(bytes, max_output));
        }
    }
}
