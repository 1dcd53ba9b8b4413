//! Sends one request to one model, and decides whether the answer is usable.

use reqwest::Client;
use serde_json::Value;
use shared::domain::TokenUsage;

use crate::exchange::{Content, Patience, Response, exchange, media_type};
use crate::fault::{Fault, Spent, error_of};
use crate::inputs::Request;
use crate::keys::ApiKey;
use crate::output::Output;
use crate::progress::Progress;
use crate::provider::Api;
use crate::redact::{displayable_model, repeats};
use crate::wire::{self, WireRequest};
use crate::{prompt, schema};

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
    /// The provider's name for the model that answered. It can differ from the requested model. `None` if the answer has no
    /// name that may be shown.
    pub model_served: Option<String>,
    pub usage: TokenUsage,
}

/// What an answer is compared with.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub api: Api,
    pub model: &'a str,
    pub key: Option<&'a ApiKey>,
    pub request: &'a Request,
    pub prompt: Prompt<'a>,
}

/// Sends one request, and waits no longer than `patience`.
pub(crate) async fn ask(
    client: &Client,
    request: WireRequest,
    question: Question<'_>,
    patience: Patience,
    progress: &Progress<'_>,
) -> Result<Answer, Fault> {
    let response = exchange(client, request, question.api, patience, progress).await?;
    if response.status.is_success() {
        return read_answer(question, response);
    }
    let body = match &response.content {
        Content::Bytes(bytes) => parse(bytes).unwrap_or_default(),
        Content::Streamed(_) => Value::Null,
    };
    Err(Fault::of_status(response.status.as_u16(), &body, &response.headers))
}

fn read_answer(question: Question<'_>, response: Response) -> Result<Answer, Fault> {
    let body = match response.content {
        Content::Streamed(body) => body,
        Content::Bytes(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => return Err(Fault::truncated()),
        Content::Bytes(_) if !is_json(&media_type(&response.headers)) => {
            return Err(Fault::unusable("the answer is not JSON"));
        }
        Content::Bytes(bytes) => parse(&bytes)?,
    };
    let wire::Reply { text, model: served, usage, problem } = wire::read(question.api, &body);
    let spent = if usage.is_reported() { Spent::Usage(Box::new(usage)) } else { Spent::Unknown };
    let unusable = |reason| Fault { spent: spent.clone(), ..Fault::unusable(reason) };
    if problem.is_some() && error_of(&body).is_some() {
        return Err(Fault { spent, ..Fault::within_answer(&body) });
    }
    // A misconfigured gateway may echo the key that it received.
    let key = question.key.and_then(ApiKey::secret);
    let has_key = key.is_some_and(|key| repeats(&text, key));
    let repeats_key = has_key.then(|| "the answer repeats the key".to_owned());
    if let Some(reason) = problem.or(repeats_key).or_else(|| text_problem(&text)) {
        return Err(unusable(reason));
    }
    if text.trim().is_empty() {
        return Err(Fault { spent, ..Fault::empty() });
    }
    let text = if prompt::is_file(question.request) { prompt::without_fence(&text).to_owned() } else { text };
    let text = question.request.output.accept(text).map_err(unusable)?;
    if let Some(reason) = content_problem(question.request, &text) {
        return Err(unusable(reason));
    }
    let model_served =
        served.and_then(|served| displayable_model(served, question.model, key, question.prompt.message));
    Ok(Answer { text, model_served, usage })
}

/// Why a text is not what the step asks for.
pub(crate) fn content_problem(request: &Request, text: &str) -> Option<String> {
    request.content_type.problem(text).or_else(|| {
        // The other outputs were checked when they were taken out of the answer.
        let schema = request.parameters.json_schema.as_ref().filter(|_| request.output == Output::Text)?;
        schema::problem(schema, &serde_json::from_str(text).ok()?)
    })
}

fn text_problem(text: &str) -> Option<String> {
    if text.len() > MAX_TEXT_BYTES {
        Some(format!("the answer is longer than {MAX_TEXT_BYTES} bytes"))
    } else if text.contains('\0') {
        // Postgres cannot store it, and removing it would change what the model wrote.
        Some("the answer contains the character NUL".to_owned())
    } else {
        None
    }
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// Parses a JSON body. The fault contains no part of the body.
pub(crate) fn parse(body: &[u8]) -> Result<Value, Fault> {
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
