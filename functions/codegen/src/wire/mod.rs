//! The formats of the providers: writes requests, and reads answers, whole or streamed.

mod anthropic;
mod chat;
mod gemini;
mod openai;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use shared::domain::TokenUsage;

use crate::ask::Prompt;
use crate::config::CodegenConfig;
use crate::fault::{Fault, FaultKind};
use crate::keys::ApiKey;
use crate::parameters::Parameters;
use crate::provider::{Api, Provider};
use crate::redact::allowed_word;
use crate::schema::is_strict;

/// The longest text of a streamed answer that is kept. Longer texts are rejected later.
const MAX_STREAMED_BYTES: usize = 6 * 1024 * 1024;

/// A parsed answer. `problem` says why it is unusable. Its tokens count in either case.
pub(crate) struct Reply<'b> {
    pub text: String,
    pub model: Option<&'b str>,
    pub usage: TokenUsage,
    pub problem: Option<String>,
}

/// A request that can be sent: exactly these bytes.
pub(crate) struct WireRequest {
    pub url: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// What a request says, apart from the prompt.
#[derive(Clone, Copy)]
struct Wish<'a> {
    model: &'a str,
    prompt: Prompt<'a>,
    parameters: &'a Parameters,
    max_tokens: u32,
    stream: bool,
}

/// Whom to ask.
#[derive(Clone, Copy)]
pub(crate) struct Addressee<'a> {
    pub provider: Provider,
    pub model: &'a str,
    /// `None` for a server that takes none.
    pub key: Option<&'a ApiKey>,
}

/// Writes the request to a model. The model's name is sent unchanged.
pub(crate) fn write(
    config: &CodegenConfig,
    to: Addressee<'_>,
    prompt: Prompt<'_>,
    parameters: &Parameters,
) -> Result<WireRequest, Fault> {
    let unsendable = || Fault::new(FaultKind::Unusable, "the key cannot be sent in a header");
    let Addressee { provider, model, key } = to;
    let max_tokens = parameters.max_output_tokens.unwrap_or(config.max_output_tokens);
    let wish = Wish { model, prompt, parameters, max_tokens, stream: config.stream };
    let (path, body) = match config.api(provider) {
        Api::Responses => ("responses".to_owned(), openai::body(wish)),
        Api::Chat => ("chat/completions".to_owned(), chat::body(wish, provider)),
        Api::Messages => ("messages".to_owned(), anthropic::body(wish)),
        Api::GenerateContent if config.stream => {
            (format!("models/{model}:streamGenerateContent?alt=sse"), gemini::body(wish))
        }
        Api::GenerateContent => (format!("models/{model}:generateContent"), gemini::body(wish)),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Events that are compressed together arrive together.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(if config.stream { "identity" } else { "gzip" }));
    if let Some(key) = key {
        let (name, value) = match config.api(provider) {
            Api::Responses | Api::Chat => ("authorization", format!("Bearer {}", key.expose())),
            Api::Messages => ("x-api-key", key.expose().to_owned()),
            Api::GenerateContent => ("x-goog-api-key", key.expose().to_owned()),
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| unsendable())?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
    }
    if config.api(provider) == Api::Messages {
        headers.insert("anthropic-version", HeaderValue::from_static(anthropic::VERSION));
    }
    let base_url = config.base_url(provider).unwrap_or_default();
    Ok(WireRequest { url: format!("{base_url}{path}"), headers, body: body.to_string().into_bytes() })
}

/// Reads a whole answer.
pub(crate) fn read(api: Api, body: &Value) -> Reply<'_> {
    match api {
        Api::Responses => openai::read(body),
        Api::Chat => chat::read(body),
        Api::Messages => anthropic::read(body),
        Api::GenerateContent => gemini::read(body),
    }
}

/// Puts the events of a streamed answer together, to the body that the same answer has if it is not streamed.
pub(crate) enum Assembly {
    Responses(openai::Assembly),
    Chat(chat::Assembly),
    Messages(anthropic::Assembly),
    GenerateContent(gemini::Assembly),
}

impl Assembly {
    pub(crate) fn new(api: Api) -> Self {
        match api {
            Api::Responses => Self::Responses(openai::Assembly::default()),
            Api::Chat => Self::Chat(chat::Assembly::default()),
            Api::Messages => Self::Messages(anthropic::Assembly::default()),
            Api::GenerateContent => Self::GenerateContent(gemini::Assembly::default()),
        }
    }

    /// Adds an event. `Err` if it reports an error.
    pub(crate) fn push(&mut self, event: Value) -> Result<(), Fault> {
        match self {
            Self::Responses(assembly) => assembly.push(event),
            Self::Chat(assembly) => assembly.push(&event),
            Self::Messages(assembly) => assembly.push(&event),
            Self::GenerateContent(assembly) => assembly.push(event),
        }
    }

    /// The event that ends a stream of chat completions. It is not JSON.
    pub(crate) fn push_done(&mut self) {
        if let Self::Chat(assembly) = self {
            assembly.done = true;
        }
    }

    /// Whether nothing more is expected. Gemini has no last event: its stream just ends.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Self::Responses(assembly) => assembly.response.is_some(),
            Self::Chat(assembly) => assembly.done,
            Self::Messages(assembly) => assembly.stopped,
            Self::GenerateContent(_) => false,
        }
    }

    /// The text so far.
    pub(crate) fn partial(&self) -> &str {
        match self {
            Self::Responses(assembly) => &assembly.text,
            Self::Chat(assembly) => &assembly.text,
            Self::Messages(assembly) => assembly.text(),
            Self::GenerateContent(assembly) => &assembly.text,
        }
    }

    /// The whole answer. `None` if its end is missing.
    pub(crate) fn finish(self) -> Option<Value> {
        match self {
            Self::Responses(assembly) => assembly.response,
            Self::Chat(assembly) => assembly.done.then(|| assembly.into_body()),
            Self::Messages(assembly) => assembly.stopped.then(|| assembly.into_body()),
            Self::GenerateContent(assembly) => assembly.into_body(),
        }
    }
}

/// Appends part of a streamed text.
fn append(text: &mut String, part: &str) -> Result<(), Fault> {
    if text.len() + part.len() > MAX_STREAMED_BYTES {
        return Err(Fault::unusable(format!("the answer is longer than {MAX_STREAMED_BYTES} bytes")));
    }
    text.push_str(part);
    Ok(())
}

/// Adds a member if there is a value.
fn set(body: &mut Value, name: &str, value: Option<Value>) {
    if let (Value::Object(members), Some(value)) = (body, value) {
        members.insert(name.to_owned(), value);
    }
}

/// The schema as OpenAI names it.
fn named_schema(schema: &Value) -> Value {
    json!({ "name": "answer", "schema": schema, "strict": is_strict(schema) })
}

/// The tier in which OpenAI bills its list prices. Without it the project's setting counts.
const OPENAI_TIER: &str = "default";
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

/// Of the alternatives in member `name`, the one whose index is 0. Gemini omits an index that is 0.
fn first<'b>(value: &'b Value, name: &str) -> Option<&'b Value> {
    let is_first = |alternative: &&Value| match alternative.get("index") {
        None | Some(Value::Null) => true,
        Some(index) => index.as_u64() == Some(0),
    };
    list(value, name).iter().find(is_first)
}

/// The text in member `name`.
fn text<'b>(value: &'b Value, name: &str) -> Option<&'b str> {
    value.get(name).and_then(Value::as_str)
}
