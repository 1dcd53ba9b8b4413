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
pub struct ModelPrice {
    pub provider: String,
    pub model: String,
    pub price: Price,
}

/// The prices that count for a tenant.
#[derive(Debug, Clone, Default)]
pub struct PriceTable {
    /// The tenant's prices, by provider and model.
    own: BTreeMap<(String, String), PriceRef>,
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

impl PriceTable {
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
    pub fn with(mut self, prices: &[ModelPrice], policy: u32) -> Self {
        let version = format!("policy-{policy}");
        self.own.extend(prices.iter().map(|of| {
            let price = PriceRef { version: version.clone(), price: of.price.clone() };
            ((of.provider.clone(), of.model.clone()), price)
        }));
        self
    }

    /// The price of a model by its exact name. A fine-tuned model `ft:BASE:..` costs what `ft:BASE` does.
    pub fn price(&self, provider: &str, model: &str) -> Option<PriceRef> {
        self.exact(provider, model).or_else(|| {
            let base = model.strip_prefix("ft:")?.split(':').next()?;
            self.exact(provider, &format!("ft:{base}"))
        })
    }

    fn exact(&self, provider: &str, model: &str) -> Option<PriceRef> {
        let own = self.own.get(&(provider.to_owned(), model.to_owned())).cloned();
        own.or_else(|| {
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
#[path = "price_tests.rs"]
mod tests;
