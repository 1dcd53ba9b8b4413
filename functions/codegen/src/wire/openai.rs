//! OpenAI's Responses API. The chat completions API does not say why an answer is incomplete.

use serde_json::{Value, json};

use super::{Reply, TOOL_CALL, UNREADABLE, list, stop_problem, text};
use crate::ask::Prompt;
use crate::redact::allowed_word;
use crate::usage::TokenUsage;

/// `store: false`: the provider must not keep the conversation.
pub(super) fn body(model: &str, prompt: Prompt<'_>, max_tokens: u32) -> Value {
    json!({
        "model": model,
        "store": false,
        "stream": false,
        "instructions": prompt.instructions,
        "input": [{ "role": "user", "content": prompt.message }],
        "max_output_tokens": max_tokens,
    })
}

pub(super) fn read(body: &Value) -> Reply<'_> {
    let items = list(body, "output");
    let messages = || items.iter().filter(|item| text(item, "type") == Some("message"));
    let parts = || messages().flat_map(|message| list(message, "content"));
    Reply {
        text: parts()
            .filter(|part| text(part, "type") == Some("output_text"))
            .filter_map(|part| text(part, "text"))
            .collect(),
        model: text(body, "model"),
        usage: TokenUsage::openai(body.get("usage")),
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
    let code = body.get("error").and_then(|error| text(error, "code")).and_then(allowed_word);
    let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
    stop_problem(status).map(|problem| problem + &code)
}
