//! Token counts, with the same meaning for every provider.

use serde::Serialize;
use serde_json::Value;

/// The tokens of one answer. `None` means "not reported", which is not zero.
///
/// Providers count differently. Here `input_tokens` always includes tokens read from and written to a cache, and
/// `output_tokens` always includes reasoning. (Anthropic's `input_tokens` excludes its cache, Gemini's
/// `candidatesTokenCount` excludes thoughts.) A value that is not a count, such as a negative number or a text, counts as
/// "not reported".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TokenUsage {
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub cached_input_tokens: Option<u64>,
    pub cache_write_input_tokens: Option<u64>,
    pub reasoning_tokens: Option<u64>,
}

impl TokenUsage {
    pub(crate) fn openai(usage: Option<&Value>) -> Self {
        let at = |pointer: &str| usage.and_then(|usage| usage.pointer(pointer));
        Self {
            input_tokens: count(at("/input_tokens")),
            output_tokens: count(at("/output_tokens")),
            cached_input_tokens: part(at("/input_tokens_details/cached_tokens")),
            cache_write_input_tokens: Some(0),
            reasoning_tokens: part(at("/output_tokens_details/reasoning_tokens")),
        }
        .without_orphan_parts()
    }

    pub(crate) fn anthropic(usage: Option<&Value>) -> Self {
        let at = |pointer: &str| usage.and_then(|usage| usage.pointer(pointer));
        let (read, written) = (part(at("/cache_read_input_tokens")), part(at("/cache_creation_input_tokens")));
        Self {
            input_tokens: sum([count(at("/input_tokens")), read, written]),
            output_tokens: count(at("/output_tokens")),
            cached_input_tokens: read,
            cache_write_input_tokens: written,
            reasoning_tokens: part(at("/output_tokens_details/thinking_tokens")),
        }
        .without_orphan_parts()
    }

    pub(crate) fn gemini(usage: Option<&Value>) -> Self {
        let at = |pointer: &str| usage.and_then(|usage| usage.pointer(pointer));
        let thoughts = at("/thoughtsTokenCount");
        let output_tokens = match at("/candidatesTokenCount") {
            // Gemini omits it if the answer has only thoughts.
            None | Some(Value::Null) => count(thoughts),
            value => sum([count(value), part(thoughts)]),
        };
        Self {
            input_tokens: sum([count(at("/promptTokenCount")), part(at("/toolUsePromptTokenCount"))]),
            output_tokens,
            cached_input_tokens: part(at("/cachedContentTokenCount")),
            cache_write_input_tokens: Some(0),
            reasoning_tokens: part(thoughts),
        }
        .without_orphan_parts()
    }

    /// Whether the provider reported any total.
    pub fn is_reported(&self) -> bool {
        self.input_tokens.is_some() || self.output_tokens.is_some()
    }

    /// Clears the parts of a total that is not reported.
    fn without_orphan_parts(mut self) -> Self {
        if self.input_tokens.is_none() {
            self.cached_input_tokens = None;
            self.cache_write_input_tokens = None;
        }
        if self.output_tokens.is_none() {
            self.reasoning_tokens = None;
        }
        self
    }
}

/// The value as a count, if it is a whole number of at most 32 bits: no answer has more tokens.
fn count(value: Option<&Value>) -> Option<u64> {
    value?.as_u64().filter(|count| u32::try_from(*count).is_ok())
}

/// A part of a total. Providers omit parts that are zero.
fn part(value: Option<&Value>) -> Option<u64> {
    match value {
        None | Some(Value::Null) => Some(0),
        value => count(value),
    }
}

/// The sum. `None` if a part is not reported.
fn sum<const N: usize>(parts: [Option<u64>; N]) -> Option<u64> {
    parts.into_iter().try_fold(0u64, |sum, part| Some(sum.saturating_add(part?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn thoughts_count_as_output_tokens() {
        assert_eq!(TokenUsage::gemini(Some(&json!({ "thoughtsTokenCount": 7 }))).output_tokens, Some(7));
    }

    #[test]
    fn a_value_that_is_not_a_count_is_not_reported() {
        for odd in [json!(-1), json!(1.5), json!("7"), json!(true), json!([]), json!(1u64 << 32), json!(1e30)] {
            let usage = TokenUsage::openai(Some(&json!({ "input_tokens": odd, "output_tokens": 3 })));
            assert_eq!((usage.input_tokens, usage.cached_input_tokens), (None, None), "{odd}");
            assert_eq!((usage.output_tokens, usage.reasoning_tokens), (Some(3), Some(0)), "{odd}");
            let usage = TokenUsage::anthropic(Some(&json!({ "input_tokens": 1, "cache_read_input_tokens": odd })));
            assert_eq!(usage.input_tokens, None, "{odd}: a sum with an unknown part is unknown");
            let usage = TokenUsage::gemini(Some(&json!({ "candidatesTokenCount": 1, "thoughtsTokenCount": odd })));
            assert_eq!(usage.output_tokens, None, "{odd}");
        }
        for nothing in [json!(null), json!("many"), json!([1])] {
            for read in [TokenUsage::openai, TokenUsage::anthropic, TokenUsage::gemini] {
                assert_eq!(read(Some(&nothing)), TokenUsage::default(), "{nothing}");
            }
        }
    }
}
