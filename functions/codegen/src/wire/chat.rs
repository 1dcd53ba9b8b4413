//! OpenAI's chat completions, which most other servers speak.

use serde_json::{Value, json};

use super::{
    OPENAI_TIER, Reply, TOOL_CALL, UNREADABLE, Wish, append, first, list, named_schema, set, stop_problem, text,
};
use crate::fault::{Fault, error_of};
use crate::provider::Provider;
use crate::usage;

pub(super) fn body(wish: Wish<'_>, provider: Provider) -> Value {
    let parameters = wish.parameters;
    // OpenAI replaced `max_tokens`. Other servers know only the older name.
    let is_openai = provider == Provider::OpenAi;
    let limit = if is_openai { "max_completion_tokens" } else { "max_tokens" };
    let mut body = json!({
        "model": wish.model,
        "messages": [
            { "role": "system", "content": wish.prompt.instructions },
            { "role": "user", "content": wish.prompt.message },
        ],
        limit: wish.max_tokens,
        "stream": wish.stream,
    });
    // The provider must not keep the conversation, and bills by the prices of this tier. Other servers may not know the fields.
    set(&mut body, "store", is_openai.then_some(Value::Bool(false)));
    set(&mut body, "service_tier", is_openai.then(|| OPENAI_TIER.into()));
    set(&mut body, "stream_options", wish.stream.then(|| json!({ "include_usage": true })));
    set(&mut body, "temperature", parameters.temperature.map(Value::from));
    set(&mut body, "reasoning_effort", parameters.reasoning_effort.map(|effort| json!(effort)));
    let format = parameters.json_schema.as_ref();
    let format = format.map(|schema| json!({ "type": "json_schema", "json_schema": named_schema(schema) }));
    set(&mut body, "response_format", format);
    body
}

/// The chunks of a streamed answer.
#[derive(Default)]
pub(crate) struct Assembly {
    model: Option<Value>,
    pub(super) text: String,
    refused: bool,
    calls_tool: bool,
    finish_reason: Option<Value>,
    usage: Option<Value>,
    /// The end `[DONE]` was received.
    pub done: bool,
}

impl Assembly {
    pub(super) fn push(&mut self, chunk: &Value) -> Result<(), Fault> {
        if error_of(chunk).is_some() {
            return Err(Fault::within_answer(chunk));
        }
        let present = |value: Option<&Value>| value.filter(|value| !value.is_null()).cloned();
        self.model = self.model.take().or_else(|| present(chunk.get("model")));
        self.usage = present(chunk.get("usage")).or_else(|| self.usage.take());
        let Some(choice) = first(chunk, "choices") else { return Ok(()) };
        self.finish_reason = present(choice.get("finish_reason")).or_else(|| self.finish_reason.take());
        if let Some(delta) = choice.get("delta") {
            append(&mut self.text, text(delta, "content").unwrap_or_default())?;
            self.refused |= is_refusal(delta);
            self.calls_tool |= is_tool_call(delta);
        }
        Ok(())
    }

    pub(super) fn into_body(self) -> Value {
        let mut message = json!({ "content": self.text });
        set(&mut message, "refusal", self.refused.then(|| "refused".into()));
        set(&mut message, "tool_calls", self.calls_tool.then(|| json!([{}])));
        let choice = json!({ "message": message, "finish_reason": self.finish_reason });
        json!({ "model": self.model, "choices": [choice], "usage": self.usage })
    }
}

pub(super) fn read(body: &Value) -> Reply<'_> {
    let choice = first(body, "choices");
    let message = choice.and_then(|choice| choice.get("message"));
    Reply {
        text: message.map(content).unwrap_or_default(),
        model: text(body, "model"),
        usage: usage::chat(body.get("usage")),
        problem: match (choice, message) {
            (Some(_), Some(message)) if is_tool_call(message) => Some(TOOL_CALL.to_owned()),
            (Some(_), Some(message)) if is_refusal(message) => Some("the model refused: refusal".to_owned()),
            (Some(choice), Some(_)) => stop_problem(text(choice, "finish_reason")),
            _ => Some(UNREADABLE.to_owned()),
        },
    }
}

/// The text of a message. Some servers send a list of parts.
fn content(message: &Value) -> String {
    match text(message, "content") {
        Some(content) => content.to_owned(),
        None => list(message, "content").iter().filter_map(|part| text(part, "text")).collect(),
    }
}

fn is_refusal(message: &Value) -> bool {
    text(message, "refusal").is_some_and(|refusal| !refusal.is_empty())
}

fn is_tool_call(message: &Value) -> bool {
    !list(message, "tool_calls").is_empty() || message.get("function_call").is_some_and(|call| !call.is_null())
}
