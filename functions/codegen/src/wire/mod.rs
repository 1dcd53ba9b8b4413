//! The formats of the three providers: writes requests and reads answers.

mod anthropic;
mod gemini;
mod openai;

use reqwest::header::{ACCEPT_ENCODING, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;

use crate::ask::Prompt;
use crate::config::CodegenConfig;
use crate::fault::Fault;
use crate::keys::ApiKey;
use crate::provider::Provider;
use crate::redact::allowed_word;
use crate::usage::TokenUsage;

/// A parsed answer. `problem` says why it is unusable. Its tokens count in either case.
pub(crate) struct Reply<'b> {
    pub text: String,
    pub model: Option<&'b str>,
    pub usage: TokenUsage,
    pub problem: Option<String>,
}

/// Builds the request to `model`. The model's name is sent unchanged.
pub(crate) fn request(
    client: &Client,
    config: &CodegenConfig,
    (provider, model, key): (Provider, &str, &ApiKey),
    prompt: Prompt<'_>,
) -> Result<RequestBuilder, Fault> {
    let base_url = config.base_urls.get(provider).as_deref().unwrap_or(provider.default_base_url());
    let max_tokens = config.max_output_tokens;
    let (path, name, value, body) = match provider {
        Provider::OpenAi => {
            let value = format!("Bearer {}", key.expose());
            ("responses".to_owned(), "authorization", value, openai::body(model, prompt, max_tokens))
        }
        Provider::Anthropic => {
            ("messages".to_owned(), "x-api-key", key.expose().to_owned(), anthropic::body(model, prompt, max_tokens))
        }
        Provider::Gemini => {
            let path = format!("models/{model}:generateContent");
            (path, "x-goog-api-key", key.expose().to_owned(), gemini::body(prompt, max_tokens))
        }
    };
    let mut value = HeaderValue::from_str(&value).map_err(|_| Fault::unusable("the key cannot be sent in a header"))?;
    value.set_sensitive(true);
    let request = client
        .post(format!("{base_url}{path}"))
        .header(HeaderName::from_static(name), value)
        .header(ACCEPT_ENCODING, "gzip")
        .json(&body);
    Ok(match provider {
        Provider::Anthropic => request.header("anthropic-version", anthropic::VERSION),
        Provider::OpenAi | Provider::Gemini => request,
    })
}

pub(crate) fn read(provider: Provider, body: &Value) -> Reply<'_> {
    match provider {
        Provider::OpenAi => openai::read(body),
        Provider::Anthropic => anthropic::read(body),
        Provider::Gemini => gemini::read(body),
    }
}

const UNREADABLE: &str = "the answer is unreadable";
const TOOL_CALL: &str = "the model asked for a tool call";

/// Why the stop reason makes an answer unusable. `None` if the answer is complete. Without a reason the answer may be
/// incomplete, so it is unusable.
fn stop_problem(reason: Option<&str>) -> Option<String> {
    let Some(reason) = reason else { return Some("the answer does not say that it is complete".to_owned()) };
    let shown = allowed_word(reason).unwrap_or("unknown");
    Some(match reason {
        "completed" | "end_turn" | "stop_sequence" | "STOP" | "stop" => return None,
        "incomplete" | "max_tokens" | "model_context_window_exceeded" | "MAX_TOKENS" | "length" => {
            format!("the answer is cut off: {shown}")
        }
        "refusal"
        | "content_filter"
        | "SAFETY"
        | "RECITATION"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "LANGUAGE"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => {
            format!("the model refused: {shown}")
        }
        "tool_use" | "tool_calls" | "function_call" => TOOL_CALL.to_owned(),
        _ => format!("the answer ended with {shown}"),
    })
}

/// The list in member `name`. Empty if it is not a list.
fn list<'b>(value: &'b Value, name: &str) -> &'b [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The text in member `name`.
fn text<'b>(value: &'b Value, name: &str) -> Option<&'b str> {
    value.get(name).and_then(Value::as_str)
}
