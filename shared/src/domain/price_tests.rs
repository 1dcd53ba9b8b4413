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
    assert_eq!(sha256_hex(BUILTIN.as_bytes()), BUILTIN_SHA256, "a changed table needs a new version and a new digest");
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
    assert_eq!(price("anthropic", "claude-sonnet-5-5").cost(&usage(2_410, 2_000, 400, 77, 0)), Some(MicroUsd(1_990)));
    // Gemini: 0.75 in, 0.075 cached, 3.75 out. 101 plain, 3 cached, 9 out of which 5 are thoughts:
    // 75.75 + 0.225 + 33.75 = 109.725, rounded up once.
    assert_eq!(price("gemini", "gemini-3.8-flash").cost(&usage(104, 3, 0, 9, 5)), Some(MicroUsd(110)));
}

#[test]
fn a_dearer_tier_counts_for_the_whole_request() {
    let pro = price("gemini", "gemini-2.5-pro");
    assert_eq!(pro.cost(&usage(200_000, 0, 0, 1_000, 0)), Some(MicroUsd(250_000 + 10_000)));
    assert_eq!(pro.cost(&usage(200_001, 0, 0, 1_000, 0)), Some(MicroUsd(500_003 + 15_000)), "500,002.5 is rounded up");
    let luna = price("openai", "gpt-6-luna");
    assert_eq!(luna.cost(&usage(272_001, 272_001, 0, 0, 0)), Some(MicroUsd(5_441)), "5,440.02 is rounded up");
}

#[test]
fn unknown_totals_have_no_cost_and_odd_parts_are_not_counted_twice() {
    let price = price("openai", "gpt-6-luna");
    assert_eq!(price.cost(&TokenUsage { output_tokens: None, ..usage(1, 0, 0, 0, 0) }), None);
    assert_eq!(price.cost(&TokenUsage { input_tokens: None, ..usage(0, 0, 0, 1, 0) }), None);
    assert_eq!(price.cost(&TokenUsage { cached_input_tokens: None, ..usage(1_000, 0, 0, 0, 0) }), Some(MicroUsd(100)));
    assert_eq!(price.cost(&usage(1_000, 9_000, 0, 10, 90)), Some(MicroUsd(10 + 5)), "no more parts than the whole");
    assert_eq!(
        price.cost(&usage(u32::MAX.into(), 0, 0, u32::MAX.into(), 0)),
        Some(MicroUsd(858_993_459 + 3_221_225_472))
    );
}

#[test]
fn a_tenants_price_replaces_the_builtin_one() {
    let own = |model: &str| ModelPrice {
        provider: "openai".to_owned(),
        model: model.to_owned(),
        price: Price { input: 7, output: 9, ..Price::default() },
    };
    let table = PriceTable::builtin().with(&[own("gpt-6-luna"), own("house-model")], 4);
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
