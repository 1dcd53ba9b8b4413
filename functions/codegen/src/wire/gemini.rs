//! Gemini's `generateContent`.

use serde_json::{Value, json};

use super::{Reply, TOOL_CALL, UNREADABLE, list, stop_problem, text};
use crate::ask::Prompt;
use crate::redact::allowed_word;
use crate::usage::TokenUsage;

/// Parts of a tool call or its result.
const TOOL_PARTS: [&str; 4] = ["functionCall", "toolCall", "executableCode", "codeExecutionResult"];

/// The body of a request. The model is in the URL.
pub(super) fn body(prompt: Prompt<'_>, max_tokens: u32) -> Value {
    json!({
        "systemInstruction": { "parts": [{ "text": prompt.instructions }] },
        "contents": [{ "role": "user", "parts": [{ "text": prompt.message }] }],
        "generationConfig": { "maxOutputTokens": max_tokens },
    })
}

pub(super) fn read(body: &Value) -> Reply<'_> {
    let candidate = list(body, "candidates").first();
    let parts = candidate.and_then(|candidate| candidate.get("content")).map(|content| list(content, "parts"));
    let parts = parts.unwrap_or_default();
    let is_thought = |part: &Value| part.get("thought").and_then(Value::as_bool) == Some(true);
    let is_tool_call = |part: &Value| TOOL_PARTS.iter().any(|name| part.get(name).is_some());
    let blocked = body.get("promptFeedback").and_then(|feedback| text(feedback, "blockReason"));
    Reply {
        text: parts.iter().filter(|part| !is_thought(part)).filter_map(|part| text(part, "text")).collect(),
        model: text(body, "modelVersion"),
        usage: TokenUsage::gemini(body.get("usageMetadata")),
        problem: match (blocked, candidate) {
            // A blocked prompt has no candidate, but its tokens count.
            (Some(reason), _) => Some(format!("the prompt was blocked: {}", allowed_word(reason).unwrap_or("unknown"))),
            (None, None) => Some(UNREADABLE.to_owned()),
            (None, Some(_)) if parts.iter().any(is_tool_call) => Some(TOOL_CALL.to_owned()),
            (None, Some(candidate)) => stop_problem(text(candidate, "finishReason")),
        },
    }
}
