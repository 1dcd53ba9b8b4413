//! OpenAI's Responses API.

use serde_json::{Value, json};

use super::{OPENAI_TIER, Reply, TOOL_CALL, UNREADABLE, Wish, append, list, named_schema, set, stop_problem, text};
use crate::fault::{Fault, error_of};
use crate::redact::allowed_word;
use crate::usage;

/// `store: false`: the provider must not keep the conversation. The tier is the one whose prices we know.
pub(super) fn body(wish: Wish<'_>) -> Value {
    let parameters = wish.parameters;
    let mut body = json!({
        "model": wish.model,
        "store": false,
        "service_tier": OPENAI_TIER,
        "stream": wish.stream,
        "instructions": wish.prompt.instructions,
        "input": [{ "role": "user", "content": wish.prompt.message }],
        "max_output_tokens": wish.max_tokens,
    });
    set(&mut body, "temperature", parameters.temperature.map(Value::from));
    set(&mut body, "reasoning", parameters.reasoning_effort.map(|effort| json!({ "effort": effort })));
    let format = parameters.json_schema.as_ref().map(|schema| {
        let mut format = named_schema(schema);
        set(&mut format, "type", Some("json_schema".into()));
        json!({ "format": format })
    });
    set(&mut body, "text", format);
    body
}

/// The last event of a stream has the whole answer.
#[derive(Default)]
pub(crate) struct Assembly {
    pub response: Option<Value>,
    /// The text so far, only for people who watch.
    pub(super) text: String,
    /// The `output_index` of the last commentary.
    commentary: Option<Value>,
}

impl Assembly {
    pub(super) fn push(&mut self, mut event: Value) -> Result<(), Fault> {
        match text(&event, "type") {
            Some("response.completed" | "response.incomplete" | "response.failed") => {
                self.response = event.get_mut("response").map(Value::take);
                Ok(())
            }
            Some("response.output_item.added") => {
                if event.get("item").is_some_and(is_commentary) {
                    self.commentary = event.get("output_index").cloned();
                }
                Ok(())
            }
            Some("response.output_text.delta")
                if self.commentary.is_some() && self.commentary.as_ref() == event.get("output_index") =>
            {
                Ok(())
            }
            Some("response.output_text.delta") => append(&mut self.text, text(&event, "delta").unwrap_or_default()),
            Some("error") => Err(Fault::within_answer(&event)),
            None if error_of(&event).is_some() => Err(Fault::within_answer(&event)),
            _ => Ok(()),
        }
    }
}

pub(super) fn read(body: &Value) -> Reply<'_> {
    let items = list(body, "output");
    let messages = || items.iter().filter(|item| text(item, "type") == Some("message") && !is_commentary(item));
    let parts = || messages().flat_map(|message| list(message, "content"));
    Reply {
        text: parts()
            .filter(|part| text(part, "type") == Some("output_text"))
            .filter_map(|part| text(part, "text"))
            .collect(),
        model: text(body, "model"),
        usage: usage::responses(body.get("usage")),
        problem: problem(body, items)
            // A refusal has the status `completed` and is one of the parts.
            .or_else(|| {
                parts().any(|part| text(part, "type") == Some("refusal")).then(|| "the model refused: refusal".into())
            })
            .or_else(|| {
                let cut = messages().any(|message| text(message, "status") == Some("incomplete"));
                cut.then(|| "the answer is cut off".into())
            }),
    }
}

fn problem(body: &Value, items: &[Value]) -> Option<String> {
    let status = text(body, "status");
    if status.is_none() && items.is_empty() {
        return Some(UNREADABLE.to_owned());
    }
    // `function_call`, `custom_tool_call`, `mcp_approval_request`, ...
    let is_tool_call =
        |item: &Value| text(item, "type").is_some_and(|kind| kind.ends_with("_call") || kind.ends_with("_request"));
    if items.iter().any(is_tool_call) {
        return Some(TOOL_CALL.to_owned());
    }
    // `incomplete` means either the token limit or the content filter.
    let detail = body.get("incomplete_details").and_then(|details| text(details, "reason"));
    if let (Some("incomplete"), Some(reason)) = (status, detail.and_then(allowed_word)) {
        return Some(format!("the answer is cut off: {reason}"));
    }
    stop_problem(status)
}

/// A message in which the model says what it is about to do. It is no part of the answer.
fn is_commentary(item: &Value) -> bool {
    text(item, "phase") == Some("commentary")
}
