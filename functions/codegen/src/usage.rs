//! Reads the token counts of each format. A value that is not a count, such as a negative number or a text, counts as
//! "not reported".

use serde_json::Value;
use shared::domain::TokenUsage;

pub(crate) fn responses(usage: Option<&Value>) -> TokenUsage {
    with_names(usage, ["input", "output"])
}

pub(crate) fn chat(usage: Option<&Value>) -> TokenUsage {
    with_names(usage, ["prompt", "completion"])
}

/// OpenAI's two formats differ in names only.
fn with_names(usage: Option<&Value>, [input, output]: [&str; 2]) -> TokenUsage {
    let at = |name: String| usage.and_then(|usage| usage.pointer(&name));
    let usage = TokenUsage {
        input_tokens: count(at(format!("/{input}_tokens"))),
        output_tokens: count(at(format!("/{output}_tokens"))),
        cached_input_tokens: part(at(format!("/{input}_tokens_details/cached_tokens"))),
        cache_write_input_tokens: part(at(format!("/{input}_tokens_details/cache_write_tokens"))),
        reasoning_tokens: part(at(format!("/{output}_tokens_details/reasoning_tokens"))),
    };
    without_orphan_parts(usage)
}

/// Anthropic's `input_tokens` excludes its cache.
pub(crate) fn messages(usage: Option<&Value>) -> TokenUsage {
    let at = |pointer: &str| usage.and_then(|usage| usage.pointer(pointer));
    let (read, written) = (part(at("/cache_read_input_tokens")), part(at("/cache_creation_input_tokens")));
    without_orphan_parts(TokenUsage {
        input_tokens: sum([count(at("/input_tokens")), read, written]),
        output_tokens: count(at("/output_tokens")),
        cached_input_tokens: read,
        cache_write_input_tokens: written,
        reasoning_tokens: part(at("/output_tokens_details/thinking_tokens")),
    })
}

/// Gemini's `candidatesTokenCount` excludes thoughts. `has_content` says whether the answer has anything but thoughts.
pub(crate) fn generate_content(usage: Option<&Value>, has_content: bool) -> TokenUsage {
    let at = |pointer: &str| usage.and_then(|usage| usage.pointer(pointer));
    let thoughts = at("/thoughtsTokenCount");
    let input_tokens = sum([count(at("/promptTokenCount")), part(at("/toolUsePromptTokenCount"))]);
    let output_tokens = match at("/candidatesTokenCount") {
        None | Some(Value::Null) if has_content => None,
        // Gemini omits counts that are zero.
        None | Some(Value::Null) => count(thoughts).or_else(|| {
            let total = count(at("/totalTokenCount"))?;
            (Some(total) == sum([input_tokens, part(thoughts)])).then_some(0)
        }),
        value => sum([count(value), part(thoughts)]),
    };
    without_orphan_parts(TokenUsage {
        input_tokens,
        output_tokens,
        cached_input_tokens: part(at("/cachedContentTokenCount")),
        cache_write_input_tokens: Some(0),
        reasoning_tokens: part(thoughts),
    })
}

/// Clears the parts of a total that is not reported.
fn without_orphan_parts(mut usage: TokenUsage) -> TokenUsage {
    if usage.input_tokens.is_none() {
        usage.cached_input_tokens = None;
        usage.cache_write_input_tokens = None;
    }
    if usage.output_tokens.is_none() {
        usage.reasoning_tokens = None;
    }
    usage
}

/// The value as a count, if it is a whole number of at most 32 bits: no answer has more tokens. Some servers write `7.0`.
fn count(value: Option<&Value>) -> Option<u64> {
    let number = value?.as_f64().filter(|number| number.fract() == 0.0)?;
    format!("{number:.0}").parse::<u32>().ok().map(u64::from)
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
        assert_eq!(generate_content(Some(&json!({ "thoughtsTokenCount": 7 })), false).output_tokens, Some(7));
    }

    #[test]
    fn tokens_that_openai_wrote_to_its_cache_are_a_part_of_the_input() {
        let details = json!({ "cached_tokens": 1000, "cache_write_tokens": 400 });
        let of_responses = json!({ "input_tokens": 2410, "input_tokens_details": details, "output_tokens": 77 });
        let of_chat = json!({ "prompt_tokens": 2410, "prompt_tokens_details": details, "completion_tokens": 77 });
        for usage in [responses(Some(&of_responses)), chat(Some(&of_chat))] {
            assert_eq!((usage.input_tokens, usage.output_tokens), (Some(2410), Some(77)));
            assert_eq!((usage.cached_input_tokens, usage.cache_write_input_tokens), (Some(1000), Some(400)));
        }
    }

    #[test]
    fn gemini_omits_a_count_of_zero() {
        let output = |usage: Value, has_content| generate_content(Some(&usage), has_content).output_tokens;
        let blocked = json!({ "promptTokenCount": 1000, "totalTokenCount": 1000 });
        assert_eq!(output(blocked.clone(), false), Some(0));
        assert_eq!(output(blocked, true), None, "the counts are those of the beginning");
        let tool = json!({ "promptTokenCount": 1000, "toolUsePromptTokenCount": 5, "totalTokenCount": 1005 });
        assert_eq!(output(tool, false), Some(0));
        for unknown in [json!({ "promptTokenCount": 7 }), json!({ "promptTokenCount": 7, "totalTokenCount": 9 })] {
            assert_eq!(output(unknown.clone(), false), None, "{unknown}");
        }
    }

    #[test]
    fn a_count_may_be_written_as_a_float() {
        let usage = responses(Some(&json!({ "input_tokens": 1000.0, "output_tokens": 3e1 })));
        assert_eq!((usage.input_tokens, usage.output_tokens), (Some(1000), Some(30)));
    }

    #[test]
    fn a_value_that_is_not_a_count_is_not_reported() {
        for odd in [json!(-1), json!(1.5), json!("7"), json!(true), json!([]), json!(1u64 << 32), json!(1e30)] {
            for (read, [input, output]) in [
                (responses as fn(Option<&Value>) -> TokenUsage, ["input_tokens", "output_tokens"]),
                (chat, ["prompt_tokens", "completion_tokens"]),
            ] {
                let usage = read(Some(&json!({ input: odd, output: 3 })));
                assert_eq!((usage.input_tokens, usage.cached_input_tokens), (None, None), "{odd}");
                assert_eq!((usage.output_tokens, usage.reasoning_tokens), (Some(3), Some(0)), "{odd}");
            }
            let usage = messages(Some(&json!({ "input_tokens": 1, "cache_read_input_tokens": odd })));
            assert_eq!(usage.input_tokens, None, "{odd}: a sum with an unknown part is unknown");
            let usage = generate_content(Some(&json!({ "candidatesTokenCount": 1, "thoughtsTokenCount": odd })), true);
            assert_eq!(usage.output_tokens, None, "{odd}");
        }
        for nothing in [json!(null), json!("many"), json!([1])] {
            for read in [responses, chat, messages, |usage: Option<&Value>| generate_content(usage, false)] {
                assert_eq!(read(Some(&nothing)), TokenUsage::default(), "{nothing}");
            }
        }
    }
}
