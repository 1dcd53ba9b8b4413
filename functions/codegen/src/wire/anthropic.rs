//! Anthropic's Messages API.

use serde_json::{Map, Value, json};

use super::{Reply, TOOL_CALL, UNREADABLE, Wish, append, list, set, stop_problem, text};
use crate::fault::{Fault, error_of};
use crate::usage;

pub(super) const VERSION: &str = "2023-06-01";

pub(super) fn body(wish: Wish<'_>) -> Value {
    let parameters = wish.parameters;
    let mut body = json!({
        "model": wish.model,
        "system": wish.prompt.instructions,
        "messages": [{ "role": "user", "content": wish.prompt.message }],
        "max_tokens": wish.max_tokens,
        "stream": wish.stream,
    });
    set(&mut body, "temperature", parameters.temperature.map(Value::from));
    let mut output = json!({});
    set(&mut output, "effort", parameters.reasoning_effort.map(|effort| json!(effort)));
    let format = parameters.json_schema.as_ref().map(|schema| json!({ "type": "json_schema", "schema": schema }));
    set(&mut output, "format", format);
    set(&mut body, "output_config", output.as_object().is_some_and(|output| !output.is_empty()).then_some(output));
    body
}

/// The parts of a streamed message.
#[derive(Default)]
pub(crate) struct Assembly {
    model: Option<Value>,
    /// Type and text of each block, by its index.
    blocks: Vec<(String, String)>,
    stop_reason: Option<Value>,
    /// Of the input from the start of the message, and of everything from its end, which replaces it.
    usage: Map<String, Value>,
    pub stopped: bool,
}

impl Assembly {
    /// A message has a few blocks. A stream with more is unusable.
    const MAX_BLOCKS: usize = 1000;

    pub(super) fn push(&mut self, event: &Value) -> Result<(), Fault> {
        match text(event, "type") {
            Some("message_start") => {
                let message = event.get("message").unwrap_or(&Value::Null);
                self.model = message.get("model").cloned();
                self.count(message.get("usage"));
                // Nothing was written yet, so this is no count of the answer.
                self.usage.remove("output_tokens");
            }
            Some("content_block_start") => {
                if self.blocks.len() == Self::MAX_BLOCKS {
                    return Err(Fault::unusable(format!("the answer has more than {} blocks", Self::MAX_BLOCKS)));
                }
                let block = event.get("content_block").unwrap_or(&Value::Null);
                let kind = text(block, "type").unwrap_or_default();
                self.blocks.push((kind.to_owned(), text(block, "text").unwrap_or_default().to_owned()));
            }
            Some("content_block_delta") => {
                let delta = event.get("delta").unwrap_or(&Value::Null);
                let index = event.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
                if let (Some("text_delta"), Some(part)) = (text(delta, "type"), text(delta, "text")) {
                    let block = index.and_then(|index| self.blocks.get_mut(index));
                    let Some((_, text)) = block else { return Err(Fault::unusable(UNREADABLE)) };
                    append(text, part)?;
                }
            }
            Some("message_delta") => {
                self.stop_reason = event.pointer("/delta/stop_reason").cloned();
                self.count(event.get("usage"));
            }
            Some("message_stop") => self.stopped = true,
            Some("error") => return Err(Fault::within_answer(event)),
            None if error_of(event).is_some() => return Err(Fault::within_answer(event)),
            // `ping`, `content_block_stop`, and what may be added.
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, usage: Option<&Value>) {
        let counts = usage.and_then(Value::as_object).into_iter().flatten().filter(|(_, count)| !count.is_null());
        self.usage.extend(counts.map(|(name, count)| (name.clone(), count.clone())));
    }

    /// Of the block that is being written.
    pub(super) fn text(&self) -> &str {
        self.blocks.iter().rev().find(|(kind, _)| kind == "text").map_or("", |(_, text)| text)
    }

    pub(super) fn into_body(self) -> Value {
        let blocks: Vec<_> =
            self.blocks.into_iter().map(|(kind, text)| json!({ "type": kind, "text": text })).collect();
        json!({ "model": self.model, "content": blocks, "stop_reason": self.stop_reason, "usage": self.usage })
    }
}

pub(super) fn read(body: &Value) -> Reply<'_> {
    let parts = list(body, "content");
    // `tool_use`, `server_tool_use`, `mcp_tool_use`.
    let is_tool_call = |part: &Value| text(part, "type").is_some_and(|kind| kind.ends_with("tool_use"));
    Reply {
        text: parts
            .iter()
            .filter(|part| text(part, "type") == Some("text"))
            .filter_map(|part| text(part, "text"))
            .collect(),
        model: text(body, "model"),
        usage: usage::messages(body.get("usage")),
        problem: if body.get("content").is_none() {
            Some(UNREADABLE.to_owned())
        } else if parts.iter().any(is_tool_call) {
            Some(TOOL_CALL.to_owned())
        } else {
            stop_problem(text(body, "stop_reason"))
        },
    }
}
