//! Keeps keys and prompts out of what we show.
//!
//! A provider, or a gateway in front of it, can return all or part of the key or the prompt in any field. So we show a
//! code, type or reason only if it is on the list below. Model names cannot be listed. We show one if it looks like a
//! name and has no part in common with the key or the prompt.

/// A name that has this many consecutive letters and digits of the key contains part of it. A key is random, so even a
/// short match is no coincidence.
const MIN_KEY_OVERLAP: usize = 5;
/// A name that has this many consecutive characters of the key or the prompt contains part of it.
const MIN_OVERLAP: usize = 8;
/// Shorter words match by chance.
const MIN_WORD: usize = 4;
/// The longest run of letters and digits in a model's name. Keys, hashes and encoded text have longer ones.
const MAX_RUN: usize = 16;
const MAX_MODEL_BYTES: usize = 100;

/// Codes, types, parameters and reasons of the three providers.
#[rustfmt::skip]
const ALLOWED_WORDS: &[&str] = &[
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

/// The most bytes of a character that is written with an escape of JSON: `\u002d`.
pub(crate) const ESCAPE_BYTES: usize = 6;

/// Whether a text has the key in it, as it is or with escapes of JSON.
pub(crate) fn repeats(text: &str, key: &str) -> bool {
    text.contains(key) || (text.contains('\\') && unescaped(text).contains(key))
}

/// The text without escapes of JSON. A key has only visible ASCII characters, so others do not matter.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after.strip_prefix('u').and_then(|digits| u32::from_str_radix(digits.get(..4)?, 16).ok());
        let (escaped, length) = match code.and_then(char::from_u32) {
            Some(escaped) => (Some(escaped), 5),
            None => (after.chars().next(), after.chars().next().map_or(0, char::len_utf8)),
        };
        plain.extend(escaped);
        rest = &after[length..];
    }
    plain.push_str(rest);
    plain
}

/// The word, if it may be shown.
pub(crate) fn allowed_word(word: &str) -> Option<&'static str> {
    ALLOWED_WORDS.iter().find(|allowed| **allowed == word).copied()
}

/// The provider's name for the model that answered, if it may be shown.
pub(crate) fn displayable_model(served: &str, requested: &str, key: Option<&str>, prompt: &str) -> Option<String> {
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
    let (key, prompt) = (key.unwrap_or_default().to_ascii_lowercase(), prompt.to_lowercase());
    // The requested name is safe. Only the rest of the name can come from the key or the prompt.
    let rest = name.strip_prefix(&requested).unwrap_or(&name);
    // Compare without separators, because they could be anywhere in an echoed key or prompt.
    if overlaps(&name, &key)
        || substrings(&alphanumeric(rest), MIN_KEY_OVERLAP).any(|part| alphanumeric(&key).contains(part))
    {
        return None;
    }
    let contains_prompt = (rest == name && prompt.contains(rest))
        || overlaps(rest, &prompt)
        || substrings(&alphanumeric(rest), MIN_OVERLAP).any(|part| alphanumeric(&prompt).contains(part))
        || words(&prompt).any(|word| rest.contains(word));
    (!contains_prompt).then(|| served.to_owned())
}

/// Whether a name contains the secret, or enough of it to rule out chance.
fn overlaps(name: &str, secret: &str) -> bool {
    if secret.is_empty() {
        return false;
    }
    if name == secret {
        return true;
    }
    let contains_secret = secret.len() >= MIN_WORD && name.contains(secret);
    let is_part_of_secret = name.len() >= MIN_WORD && !is_version(name) && secret.contains(name);
    contains_secret || is_part_of_secret || substrings(name, MIN_OVERLAP).any(|part| secret.contains(part))
}

/// Every substring of this many bytes.
fn substrings(text: &str, length: usize) -> impl Iterator<Item = &str> {
    text.as_bytes().windows(length).filter_map(|part| str::from_utf8(part).ok())
}

/// The ASCII letters and digits of a text.
fn alphanumeric(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Whether this looks like the version at the end of a model's name: digits and separators.
fn is_version(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || b"-.:@_".contains(&byte))
}

/// The words of the prompt to look for. Skips short words, and years and other short numbers, which model names contain
/// too.
fn words(prompt: &str) -> impl Iterator<Item = &str> {
    prompt
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() >= MIN_WORD && !(word.len() < 6 && word.bytes().all(|byte| byte.is_ascii_digit())))
}

#[cfg(test)]
mod tests {
    use shared::auth::ApiToken;
    use shared::domain::{Kind, TenantId, TokenId};

    use super::*;
    use crate::keys::ProviderKeys;
    use crate::provider::Provider;

    const KEY: &str = concat!("sk-proj-", "Ab3dEf6hIj9kLm2nOp5q");

    fn shown(served: &str, prompt: &str) -> bool {
        let keys = ProviderKeys::from_secret(&format!(r#"{{"OPENAI_API_KEY":"{KEY}"}}"#)).unwrap();
        displayable_model(served, "gpt-6-luna", Some(keys.get(Provider::OpenAi).unwrap().expose()), prompt).is_some()
    }

    #[test]
    fn a_model_name_is_shown() {
        for name in ["gpt-6-luna", "gpt-6-luna-2026-09-01", "gpt-6-luna-001", "openai/gpt-6-luna", "qwen3-max", "o5"] {
            assert!(shown(name, "Compare the plans of 2026 with what was done"), "{name}");
        }
        assert!(shown("gpt-6-luna", "gpt-6-luna"), "the requested name");
        assert!(shown("gpt-6-luna-001", "which is better, gpt-6-luna or another model?"));
    }

    #[test]
    fn no_part_of_the_key_is_shown_as_a_model() {
        let upper = KEY.to_ascii_uppercase();
        let reversed: String = KEY.chars().rev().collect();
        for name in [KEY, upper.as_str(), reversed.as_str(), &KEY[..7], &KEY[8..16], &KEY[20..], "sk-p..Op5q"] {
            assert!(!shown(name, "p"), "{name}");
            assert!(name.len() < MIN_OVERLAP || !shown(&format!("gpt-6-luna-{name}"), "p"), "{name}");
        }
    }

    #[test]
    fn no_token_of_ours_is_shown_as_a_model() {
        let id = TokenId(uuid::Uuid::from_u128(7));
        for kind in Kind::ALL {
            let token = ApiToken::generate(*kind, id, TenantId("a".into())).unwrap().expose();
            let secret = token.rsplit('_').next().unwrap();
            for name in [token.as_str(), secret, &secret[..17], &format!("gpt-6-luna-{token}")] {
                assert!(!shown(name, "p"), "{name}");
                assert_eq!(allowed_word(name), None);
            }
        }
    }

    #[test]
    fn separators_do_not_hide_the_key_or_the_prompt() {
        for name in ["sk-pr-ojAb3-dEf6h-Ij9kL", "sk.pro", "x-Ab3.dE-f6"] {
            assert!(!shown(name, "p"), "{name}");
        }
        assert!(!shown("swo-rdf-ish-ope", "swordfish opens the vault"));
    }

    #[test]
    fn no_word_of_the_prompt_is_shown_as_a_model() {
        let prompt = "swordfish opens the vault";
        for name in ["swordfish", "Swordfish", "gpt-6-luna-swordfish", "vault-1", "sword", "the", "fish-opens"] {
            assert!(!shown(name, prompt), "{name}");
        }
        for name in ["", "gpt 6", "gpt\u{0}6", "gpt\n6", "swörd", &"x".repeat(101)] {
            assert!(!shown(name, "p"), "{name}: not a name");
        }
    }

    #[test]
    fn escapes_do_not_hide_the_key() {
        let first = format!("\\u{:04X}", u32::from(b's'));
        let all = KEY.bytes().map(|byte| format!("\\u{byte:04x}")).collect::<Vec<_>>().concat();
        for text in [KEY.to_owned(), KEY.replace('-', "\\u002d"), format!("\\\"\\u12{first}{}", &KEY[1..]), all] {
            assert!(repeats(&format!("{{\"a\": \"{text}\"}}"), KEY), "{text}");
        }
        assert!(repeats(r#"my \"key\/\\ "#, r#""key/\"#));
        for text in ["", "\\", "\\u", "\\u00", "\\u00ä", "\\ud800", &KEY[1..]] {
            assert!(!repeats(text, KEY), "{text}");
        }
    }

    #[test]
    fn only_words_on_the_list_are_shown() {
        assert_eq!(allowed_word("insufficient_quota"), Some("insufficient_quota"));
        assert_eq!((allowed_word(KEY), allowed_word("swordfish"), allowed_word("")), (None, None, None));
    }
}
