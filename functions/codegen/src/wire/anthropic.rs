//! Anthropic's Messages API.

use serde_json::{Value, json};

use super::{Reply, TOOL_CALL, UNREADABLE, list, stop_problem, text};
use crate::ask::Prompt;
use crate::usage::TokenUsage;

pub(super) const VERSION: &str = "2023-06-01";

pub(super) fn body(model: &str, prompt: Prompt<'_>, max_tokens: u32) -> Value {
    json!({
        "model": model,
        "system": prompt.instructions,
        "messages": [{ "role": "user", "content": prompt.message }],
        "max_tokens": max_tokens,
    })
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
        usage: TokenUsage::anthropic(body.get("usage")),
        problem: if body.get("content").is_none() {
            Some(UNREADABLE.to_owned())
        } else if parts.iter().any(is_tool_call) {
            Some(TOOL_CALL.to_owned())
        } else {
            stop_problem(text(body, "stop_reason"))
        },
    }
}
