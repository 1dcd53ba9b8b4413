//! One request to one model, through genai, and the judgement whether its answer can be used.

use std::time::Duration;

use genai::chat::{ChatOptions, ChatRequest, ChatResponse, StopReason};
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, ModelIden, ServiceTarget};
use serde_json::Value;

use crate::config::CodegenConfig;
use crate::fault::{Fault, identifier};
use crate::keys::ApiKey;
use crate::provider::Provider;
use crate::usage::TokenUsage;

/// A longer answer is not taken: it would not fit into what a step may leave behind.
const MAX_TEXT_BYTES: usize = 4 * 1024 * 1024;

/// What a model is asked.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub instructions: &'a str,
    pub message: &'a str,
}

/// A usable answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub text: String,
    /// The model as the provider calls it, which can differ from the one asked for.
    pub model_served: String,
    pub usage: TokenUsage,
}

/// A client that neither follows redirects (they would carry keys elsewhere), nor retries (the router does), nor reads the
/// environment (proxies).
pub(crate) fn client(config: &CodegenConfig) -> Result<Client, Fault> {
    let broken = || Fault::unusable("the HTTP client cannot be built");
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .connect_timeout(config.connect_timeout)
        .timeout(config.request_timeout)
        .user_agent(concat!("nofx-codegen/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|_| broken())?;
    Client::builder().with_reqwest(http).build().map_err(|_| broken())
}

/// Asks once, for at most `limit`.
pub(crate) async fn ask(
    client: &Client,
    config: &CodegenConfig,
    (provider, model, key): (Provider, &str, &ApiKey),
    question: Question<'_>,
    limit: Duration,
) -> Result<Answer, Fault> {
    let base_url = config.base_urls.get(provider).as_deref().unwrap_or(provider.default_base_url());
    // A whole target: genai then resolves nothing by itself, neither from the model's name nor from the environment.
    let target = ServiceTarget {
        endpoint: Endpoint::from_owned(base_url),
        auth: AuthData::from_single(key.expose()),
        model: ModelIden::new(provider.adapter(), model),
    };
    let request = ChatRequest::from_user(question.message).with_system(question.instructions);
    // The raw body tells what genai drops: why an OpenAI answer is incomplete, and why Gemini blocked a prompt.
    let options = ChatOptions::default().with_max_tokens(config.max_output_tokens).with_capture_raw_body(true);
    let asked = client.exec_chat(target, request, Some(&options));
    let judged = match tokio::time::timeout(limit, asked).await {
        Err(_) => Err(Fault::timed_out(limit)),
        Ok(Err(error)) => Err(Fault::of(&error)),
        Ok(Ok(response)) => judge(response),
    };
    judged.map_err(|mut fault| {
        // Only identifiers get here, but a server could still send the key back as one.
        fault.reason = fault.reason.replace(key.expose(), "[key]");
        fault
    })
}

fn judge(response: ChatResponse) -> Result<Answer, Fault> {
    let usage = TokenUsage::from(&response.usage);
    let raw = response.captured_raw_body.unwrap_or_default();
    let model_served =
        identifier(response.provider_model_iden.model_name.as_str()).unwrap_or_else(|| "unknown".to_owned());
    let text = response.content.into_texts().concat();
    let problem = refusal(&raw).or_else(|| stop_problem(response.stop_reason.as_ref(), &raw)).or_else(|| {
        if text.trim().is_empty() {
            Some("the answer is empty".to_owned())
        } else if text.len() > MAX_TEXT_BYTES {
            Some(format!("the answer is longer than {MAX_TEXT_BYTES} bytes"))
        } else {
            None
        }
    });
    match problem {
        None => Ok(Answer { text, model_served, usage }),
        Some(reason) => Err(Fault { usage: usage.is_told().then(|| Box::new(usage)), ..Fault::unusable(reason) }),
    }
}

/// Why the model stopped, if that makes its answer unusable. Not to be told a reason counts: half an answer must not pass.
fn stop_problem(stop: Option<&StopReason>, raw: &Value) -> Option<String> {
    let said = |reason: &str| identifier(reason).unwrap_or_else(|| "unknown".to_owned());
    match stop {
        Some(StopReason::Completed(_) | StopReason::StopSequence(_)) => None,
        // OpenAI says `incomplete` both for the token limit and for its filter.
        Some(StopReason::MaxTokens(reason)) => {
            let reason = raw.pointer("/incomplete_details/reason").and_then(Value::as_str).unwrap_or(reason);
            Some(format!("the answer is cut off: {}", said(reason)))
        }
        Some(StopReason::ContentFilter(reason)) => Some(format!("the model refused: {}", said(reason))),
        Some(StopReason::ToolCall(reason)) => Some(format!("the model asked for a tool: {}", said(reason))),
        Some(StopReason::Other(reason)) => {
            let code = raw.pointer("/error/code").and_then(Value::as_str).and_then(identifier);
            let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
            Some(format!("the answer ended with {}{code}", said(reason)))
        }
        None => Some("the answer does not say that it is complete".to_owned()),
    }
}

/// OpenAI completes a refused answer, with a content part that genai drops.
fn refusal(raw: &Value) -> Option<String> {
    let parts = raw.get("output")?.as_array()?.iter().filter_map(|item| item.get("content")?.as_array()).flatten();
    let refused = parts.into_iter().any(|part| part.get("type").and_then(Value::as_str) == Some("refusal"));
    refused.then(|| "the model refused: refusal".to_owned())
}
