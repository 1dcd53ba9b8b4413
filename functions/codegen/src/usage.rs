//! Tokens, counted alike for every provider.

use genai::chat::Usage;
use serde::Serialize;

/// What one answer used. `None` is "not told", which is not zero.
///
/// The providers count differently; here `input_tokens` always includes tokens read from and written to a cache, and
/// `output_tokens` always includes reasoning. (Anthropic's `input_tokens` excludes its cache, Gemini's `candidatesTokenCount`
/// excludes thoughts; genai adds them back.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TokenUsage {
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub cached_input_tokens: Option<u64>,
    pub cache_write_input_tokens: Option<u64>,
    pub reasoning_tokens: Option<u64>,
}

impl From<&Usage> for TokenUsage {
    fn from(usage: &Usage) -> Self {
        let input = usage.prompt_tokens_details.as_ref();
        let output = usage.completion_tokens_details.as_ref();
        let reasoning = count(output.and_then(|details| details.reasoning_tokens));
        // Gemini leaves `candidatesTokenCount` out when nothing but thoughts was made.
        let output_tokens = count(usage.completion_tokens).or(reasoning);
        let input_tokens = count(usage.prompt_tokens);
        // Where a total is told, a detail that is not told is zero: genai maps zero to "not told".
        let part = |total: Option<u64>, detail: Option<u64>| total.map(|_| detail.unwrap_or(0));
        Self {
            input_tokens,
            output_tokens,
            cached_input_tokens: part(input_tokens, count(input.and_then(|details| details.cached_tokens))),
            cache_write_input_tokens: part(
                input_tokens,
                count(input.and_then(|details| details.cache_creation_tokens)),
            ),
            reasoning_tokens: part(output_tokens, reasoning),
        }
    }
}

impl TokenUsage {
    /// Whether the provider told anything.
    pub fn is_told(&self) -> bool {
        self.input_tokens.is_some() || self.output_tokens.is_some()
    }
}

fn count(tokens: Option<i32>) -> Option<u64> {
    tokens.and_then(|tokens| u64::try_from(tokens).ok())
}

#[cfg(test)]
mod tests {
    use genai::chat::CompletionTokensDetails;

    use super::*;

    #[test]
    fn an_answer_of_thoughts_alone_is_not_free() {
        let details = CompletionTokensDetails { reasoning_tokens: Some(7), ..CompletionTokensDetails::default() };
        let usage = Usage { completion_tokens_details: Some(details), ..Usage::default() };
        assert_eq!(TokenUsage::from(&usage).output_tokens, Some(7));
    }
}
