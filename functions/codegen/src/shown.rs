//! Which words of a provider may be shown.
//!
//! A provider, or a gateway in front of it, can return the key or the prompt in any field, whole or in part. So its
//! words are never passed on. A code, type or reason is shown only if it is on the list below. Names of models cannot
//! be listed. One is shown if it looks like a name and shares nothing with the key or the prompt.

use crate::keys::ApiKey;

/// Letters and digits of the key that a name may not contain in sequence. They are random, so a few in common are not a
/// coincidence.
const KEY_SHARED: usize = 5;
/// A name that shares this many characters with the key or the prompt counts as a part of it.
const SHARED: usize = 8;
/// Shorter words occur in other words by chance.
const MIN_WORD: usize = 4;
/// The longest run of letters and digits in a model's name. Keys, hashes and encoded texts have longer ones.
const MAX_RUN: usize = 16;
const MAX_MODEL_BYTES: usize = 100;

/// Codes, types, parameters and reasons of the three providers.
#[rustfmt::skip]
const KNOWN: &[&str] = &[
    // OpenAI: codes and types.
    "account_deactivated", "authentication_error", "bad_request", "billing_hard_limit_reached", "billing_not_active",
    "bio_policy", "context_length_exceeded", "country_not_supported", "cyber_policy", "deployment_not_found",
    "engine_overloaded", "forbidden", "image_content_policy_violation", "incorrect_api_key", "incorrect_hostname",
    "insufficient_balance", "insufficient_funds", "insufficient_permissions", "insufficient_quota", "internal_error",
    "internal_server_error", "invalid_api_key", "invalid_authentication", "invalid_image", "invalid_organization",
    "invalid_parameter", "invalid_project", "invalid_prompt", "invalid_request", "invalid_request_error", "invalid_type",
    "invalid_value", "ip_not_authorized", "missing_required_parameter", "model_not_available", "model_not_found",
    "model_overloaded", "not_authorized", "not_found", "organization_not_found", "policy_violation", "project_not_found",
    "quota_exceeded", "rate_limit_exceeded", "requests", "request_timeout", "server_error", "service_unavailable",
    "spend_limit_exceeded", "spend_limit_reached", "string_above_max_length", "timeout", "token_limit_exceeded", "tokens",
    "too_many_requests", "unauthorized", "unknown_parameter", "unsupported_country_region_territory", "unsupported_model",
    "unsupported_parameter", "unsupported_value", "usage_limit_reached", "vector_store_timeout",
    // OpenAI and Anthropic: parameters.
    "input", "instructions", "max_output_tokens", "max_tokens", "messages", "model", "store", "stream", "system",
    // Anthropic: types.
    "api_error", "billing_error", "conflict_error", "credit_balance_too_low", "invalid_api_key_error", "not_found_error",
    "overloaded", "overloaded_error", "payment_required", "permission_error", "rate_limit_error", "request_too_large",
    "timeout_error",
    // Gemini: states and reasons of google.rpc.
    "ABORTED", "ACCESS_TOKEN_EXPIRED", "ACCESS_TOKEN_SCOPE_INSUFFICIENT", "ACCOUNT_STATE_INVALID", "ALREADY_EXISTS",
    "API_KEY_ANDROID_APP_BLOCKED", "API_KEY_EXPIRED", "API_KEY_HTTP_REFERRER_BLOCKED", "API_KEY_INVALID",
    "API_KEY_IOS_APP_BLOCKED", "API_KEY_IP_ADDRESS_BLOCKED", "API_KEY_SERVICE_BLOCKED", "BILLING_DISABLED", "CANCELLED",
    "CONSUMER_INVALID", "CONSUMER_SUSPENDED", "CREDENTIALS_MISSING", "DATA_LOSS", "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION", "INTERNAL", "INVALID_ARGUMENT", "LOCATION_POLICY_VIOLATED", "NOT_FOUND", "OUT_OF_RANGE",
    "PERMISSION_DENIED", "QUOTA_EXCEEDED", "RATE_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "RESOURCE_QUOTA_EXCEEDED",
    "SECURITY_POLICY_VIOLATED", "SERVICE_DISABLED", "SERVICE_NOT_VISIBLE", "UNAUTHENTICATED", "UNAVAILABLE",
    "UNIMPLEMENTED", "UNKNOWN", "USER_PROJECT_DENIED",
    // Reasons why an answer ended.
    "cancelled", "content_filter", "failed", "function_call", "in_progress", "incomplete", "length",
    "model_context_window_exceeded", "pause_turn", "queued", "refusal", "tool_calls", "tool_use", "BLOCKLIST",
    "BLOCK_REASON_UNSPECIFIED", "FINISH_REASON_UNSPECIFIED", "IMAGE_OTHER", "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION", "IMAGE_SAFETY", "LANGUAGE", "MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "MAX_TOKENS",
    "MISSING_THOUGHT_SIGNATURE", "MODEL_ARMOR", "NO_IMAGE", "OTHER", "PROHIBITED_CONTENT", "RECITATION", "SAFETY", "SPII",
    "TOO_MANY_TOOL_CALLS", "UNEXPECTED_TOOL_CALL",
];

/// The word, if it is on the list.
pub(crate) fn known(word: &str) -> Option<&'static str> {
    KNOWN.iter().find(|known| **known == word).copied()
}

/// The name under which a model answered, if it may be shown.
pub(crate) fn served_model(served: &str, requested: &str, key: &ApiKey, prompt: &str) -> Option<String> {
    if served == requested {
        return Some(served.to_owned());
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:/@".contains(&byte);
    let longest_run = served.split(|c: char| !c.is_ascii_alphanumeric()).map(str::len).max().unwrap_or(0);
    // Two dots may stand for the middle of a key: `sk-ab..yz`.
    let is_name = !served.is_empty()
        && served.len() <= MAX_MODEL_BYTES
        && served.bytes().all(allowed)
        && !served.contains("..")
        && longest_run <= MAX_RUN;
    if !is_name {
        return None;
    }
    let (name, requested) = (served.to_ascii_lowercase(), requested.to_ascii_lowercase());
    let (key, prompt) = (key.expose().to_ascii_lowercase(), prompt.to_lowercase());
    // The requested model's name may always be shown. Only the rest of the name can come from the key or the prompt.
    let rest = name.strip_prefix(&requested).unwrap_or(&name);
    // Compare without separators, which could stand anywhere between the characters.
    if shares(&name, &key) || parts(&bare(rest), KEY_SHARED).any(|part| bare(&key).contains(part)) {
        return None;
    }
    let says_prompt = (rest == name && prompt.contains(rest))
        || shares(rest, &prompt)
        || parts(&bare(rest), SHARED).any(|part| bare(&prompt).contains(part))
        || words(&prompt).any(|word| rest.contains(word));
    (!says_prompt).then(|| served.to_owned())
}

/// Whether a name contains the secret, or a part of it that is too long to be a coincidence.
fn shares(name: &str, secret: &str) -> bool {
    if name == secret {
        return true;
    }
    let holds = secret.len() >= MIN_WORD && name.contains(secret);
    let is_held = name.len() >= MIN_WORD && !is_version(name) && secret.contains(name);
    holds || is_held || parts(name, SHARED).any(|part| secret.contains(part))
}

/// Every part of a text with this many bytes.
fn parts(text: &str, length: usize) -> impl Iterator<Item = &str> {
    text.as_bytes().windows(length).filter_map(|part| str::from_utf8(part).ok())
}

/// Only the letters and digits.
fn bare(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Whether this can be the version at the end of a model's name: digits and separators.
fn is_version(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || b"-.:@_".contains(&byte))
}

/// The words that are looked for. Not years and other short numbers, which occur in model names too.
fn words(prompt: &str) -> impl Iterator<Item = &str> {
    prompt
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() >= MIN_WORD && !(word.len() < 6 && word.bytes().all(|byte| byte.is_ascii_digit())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::ProviderKeys;
    use crate::provider::Provider;

    const KEY: &str = "sk-proj-Ab3dEf6hIj9kLm2nOp5q";

    fn shown(served: &str, prompt: &str) -> bool {
        let keys = ProviderKeys::from_secret(&format!(r#"{{"OPENAI_API_KEY":"{KEY}"}}"#)).unwrap();
        served_model(served, "gpt-6-luna", keys.get(Provider::OpenAi).unwrap(), prompt).is_some()
    }

    #[test]
    fn a_model_is_shown_under_the_names_that_models_have() {
        for name in ["gpt-6-luna", "gpt-6-luna-2026-09-01", "gpt-6-luna-001", "openai/gpt-6-luna", "qwen3-max", "o5"] {
            assert!(shown(name, "Compare the plans of 2026 with what was done"), "{name}");
        }
        assert!(shown("gpt-6-luna", "gpt-6-luna"), "what the plan asked for");
        assert!(shown("gpt-6-luna-001", "which is better, gpt-6-luna or another model?"));
    }

    #[test]
    fn no_part_of_the_key_passes_for_a_model() {
        let upper = KEY.to_ascii_uppercase();
        let reversed: String = KEY.chars().rev().collect();
        for name in [KEY, upper.as_str(), reversed.as_str(), &KEY[..7], &KEY[8..16], &KEY[20..], "sk-p..Op5q"] {
            assert!(!shown(name, "p"), "{name}");
            assert!(name.len() < SHARED || !shown(&format!("gpt-6-luna-{name}"), "p"), "{name}");
        }
    }

    #[test]
    fn separators_hide_neither_key_nor_prompt() {
        for name in ["sk-pr-ojAb3-dEf6h-Ij9kL", "sk.pro", "x-Ab3.dE-f6"] {
            assert!(!shown(name, "p"), "{name}");
        }
        assert!(!shown("swo-rdf-ish-ope", "swordfish opens the vault"));
    }

    #[test]
    fn no_word_of_the_prompt_passes_for_a_model() {
        let prompt = "swordfish opens the vault";
        for name in ["swordfish", "Swordfish", "gpt-6-luna-swordfish", "vault-1", "sword", "the", "fish-opens"] {
            assert!(!shown(name, prompt), "{name}");
        }
        for name in ["", "gpt 6", "gpt\u{0}6", "gpt\n6", "swörd", &"x".repeat(101)] {
            assert!(!shown(name, "p"), "{name}: no name");
        }
    }

    #[test]
    fn a_word_that_is_not_on_the_list_is_not_shown() {
        assert_eq!(known("insufficient_quota"), Some("insufficient_quota"));
        assert_eq!((known(KEY), known("swordfish"), known("")), (None, None, None));
    }
}
