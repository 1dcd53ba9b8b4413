//! Sends one request to one model, and decides whether the answer is usable.

use std::time::Duration;

use reqwest::Client;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::Value;

use crate::config::CodegenConfig;
use crate::exchange::{Response, exchange};
use crate::fault::Fault;
use crate::keys::ApiKey;
use crate::provider::Provider;
use crate::redact::displayable_model;
use crate::usage::TokenUsage;
use crate::wire;

/// Longer texts are rejected.
const MAX_TEXT_BYTES: usize = 4 * 1024 * 1024;
/// A real answer has a few hundred values. A parsed value takes up to a hundred times the memory of its text.
const MAX_VALUES: usize = 20_000;

/// What to send to a model.
#[derive(Clone, Copy)]
pub(crate) struct Prompt<'a> {
    pub instructions: &'a str,
    pub message: &'a str,
}

/// A usable answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub text: String,
    /// The provider's name for the model that answered. It can differ from the requested model.
    pub model_served: String,
    pub usage: TokenUsage,
}

/// Sends one request and waits at most `limit`.
pub(crate) async fn ask(
    client: &Client,
    config: &CodegenConfig,
    target: (Provider, &str, &ApiKey),
    prompt: Prompt<'_>,
    limit: Duration,
) -> Result<Answer, Fault> {
    let request = wire::request(client, config, target, prompt)?;
    let response = match tokio::time::timeout(limit, exchange(request)).await {
        Ok(response) => response?,
        Err(_) => return Err(Fault::timed_out(limit)),
    };
    if !response.status.is_success() {
        return Err(Fault::of_status(
            response.status.as_u16(),
            &parse(&response.body).unwrap_or_default(),
            &response.headers,
        ));
    }
    read_answer(target, prompt, &response)
}

fn read_answer(target: (Provider, &str, &ApiKey), prompt: Prompt<'_>, response: &Response) -> Result<Answer, Fault> {
    let (provider, model, key) = target;
    let Response { headers, body, .. } = response;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Fault::truncated());
    }
    if !is_json(headers) {
        return Err(Fault::unusable("the answer is not JSON"));
    }
    let body = parse(body)?;
    let wire::Reply { text, model: served, usage, problem } = wire::read(provider, &body);
    // A misconfigured gateway may echo the key that it received.
    let repeats_key = text.contains(key.expose()).then(|| "the answer repeats the key".to_owned());
    match problem.or(repeats_key).or_else(|| text_problem(&text)) {
        None => {
            let served = served.and_then(|served| displayable_model(served, model, key, prompt.message));
            Ok(Answer { text, model_served: served.unwrap_or_else(|| "unknown".to_owned()), usage })
        }
        Some(reason) => Err(Fault { usage: usage.is_reported().then(|| Box::new(usage)), ..Fault::unusable(reason) }),
    }
}

fn text_problem(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        Some("the answer is empty".to_owned())
    } else if text.len() > MAX_TEXT_BYTES {
        Some(format!("the answer is longer than {MAX_TEXT_BYTES} bytes"))
    } else if text.contains('\0') {
        // Postgres cannot store it, and removing it would change what the model wrote.
        Some("the answer contains the character NUL".to_owned())
    } else {
        None
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// Parses a JSON body. The fault contains no part of the body.
fn parse(body: &[u8]) -> Result<Value, Fault> {
    let Ok(text) = str::from_utf8(body) else { return Err(Fault::unusable("the answer is not UTF-8")) };
    if max_value_count(text) > MAX_VALUES {
        return Err(Fault::unusable(format!("the answer has more than {MAX_VALUES} values")));
    }
    serde_json::from_str(text)
        .map_err(|error| if error.is_eof() { Fault::truncated() } else { Fault::unusable("the answer is not JSON") })
}

/// An upper bound on the number of values in a JSON text: it counts the characters that precede values.
fn max_value_count(text: &str) -> usize {
    let (mut values, mut in_string, mut escaped) = (1, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' | b',' if !in_string => values += 1,
            _ => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_values_outside_strings_are_counted() {
        assert_eq!(max_value_count(r#"{"a": [1, 2], "b,[{": "\",["}"#), 5);
        assert_eq!(max_value_count(&json!("x").to_string()), 1);
    }

    #[test]
    fn a_small_text_with_many_values_is_rejected() {
        let wide = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert!(parse(wide.as_bytes()).unwrap_err().reason.contains("values"));
        let deep = "[".repeat(10_000);
        assert_eq!(parse(deep.as_bytes()).unwrap_err().reason, "the answer is not JSON");
    }
}
