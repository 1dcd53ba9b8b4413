//! Gemini's `generateContent`.

use serde_json::{Value, json};

use super::{Reply, TOOL_CALL, UNREADABLE, Wish, append, first, list, set, stop_problem, text};
use crate::fault::{Fault, error_of};
use crate::redact::allowed_word;
use crate::usage;

/// Parts of a tool call or its result.
const TOOL_PARTS: [&str; 4] = ["functionCall", "toolCall", "executableCode", "codeExecutionResult"];

/// The body of a request. The model is in the URL, and so is whether the answer is streamed.
pub(super) fn body(wish: Wish<'_>) -> Value {
    let parameters = wish.parameters;
    let mut generation = json!({ "maxOutputTokens": wish.max_tokens });
    set(&mut generation, "temperature", parameters.temperature.map(Value::from));
    let level = parameters.reasoning_effort.map(|effort| json!({ "thinkingLevel": effort.as_str() }));
    set(&mut generation, "thinkingConfig", level);
    if let Some(schema) = &parameters.json_schema {
        set(&mut generation, "responseMimeType", Some("application/json".into()));
        set(&mut generation, "responseJsonSchema", Some(schema.clone()));
    }
    json!({
        "systemInstruction": { "parts": [{ "text": wish.prompt.instructions }] },
        "contents": [{ "role": "user", "parts": [{ "text": wish.prompt.message }] }],
        "generationConfig": generation,
    })
}

/// The chunks of a streamed answer. Each is an answer of its own; texts add up, and the last counts are the answer's.
#[derive(Default)]
pub(crate) struct Assembly {
    pub(super) text: String,
    /// A part of a tool call.
    tool: Option<Value>,
    finish_reason: Option<Value>,
    feedback: Option<Value>,
    model: Option<Value>,
    usage: Option<Value>,
}

impl Assembly {
    pub(super) fn push(&mut self, mut chunk: Value) -> Result<(), Fault> {
        if error_of(&chunk).is_some() {
            return Err(Fault::within_answer(&chunk));
        }
        let candidate = first(&chunk, "candidates");
        for part in
            candidate.and_then(|candidate| candidate.get("content")).map_or(&[][..], |content| list(content, "parts"))
        {
            if is_tool_call(part) {
                self.tool = Some(part.clone());
            } else if !is_thought(part) {
                append(&mut self.text, text(part, "text").unwrap_or_default())?;
            }
        }
        let reason = candidate.and_then(|candidate| candidate.get("finishReason")).filter(|reason| !reason.is_null());
        if let Some(reason) = reason.cloned() {
            self.finish_reason = Some(reason);
        }
        for (name, kept) in [
            ("promptFeedback", &mut self.feedback),
            ("modelVersion", &mut self.model),
            ("usageMetadata", &mut self.usage),
        ] {
            if let Some(value) = chunk.get_mut(name).filter(|value| !value.is_null()) {
                *kept = Some(value.take());
            }
        }
        Ok(())
    }

    /// The whole answer, if it says why it ended.
    pub(super) fn into_body(self) -> Option<Value> {
        let is_blocked = self.feedback.as_ref().is_some_and(|feedback| feedback.get("blockReason").is_some());
        if self.finish_reason.is_none() && !is_blocked {
            return None;
        }
        let parts: Vec<_> = [Some(json!({ "text": self.text })), self.tool].into_iter().flatten().collect();
        let candidate = json!({ "content": { "parts": parts }, "finishReason": self.finish_reason });
        Some(json!({
            "candidates": [candidate],
            "promptFeedback": self.feedback,
            "modelVersion": self.model,
            "usageMetadata": self.usage,
        }))
    }
}

fn is_thought(part: &Value) -> bool {
    part.get("thought").and_then(Value::as_bool) == Some(true)
}

fn is_tool_call(part: &Value) -> bool {
    TOOL_PARTS.iter().any(|name| part.get(name).is_some())
}

pub(super) fn read(body: &Value) -> Reply<'_> {
    let candidate = first(body, "candidates");
    let parts = candidate.and_then(|candidate| candidate.get("content")).map(|content| list(content, "parts"));
    let parts = parts.unwrap_or_default();
    let written: String = parts.iter().filter(|part| !is_thought(part)).filter_map(|part| text(part, "text")).collect();
    let calls_tool = parts.iter().any(is_tool_call);
    let blocked = body.get("promptFeedback").and_then(|feedback| text(feedback, "blockReason"));
    Reply {
        usage: usage::generate_content(body.get("usageMetadata"), calls_tool || !written.is_empty()),
        text: written,
        model: text(body, "modelVersion"),
        problem: match (blocked, candidate) {
            // A blocked prompt has no candidate, but its tokens count.
            (Some(reason), _) => Some(format!("the prompt was blocked: {}", allowed_word(reason).unwrap_or("unknown"))),
            (None, None) => Some(UNREADABLE.to_owned()),
            (None, Some(_)) if calls_tool => Some(TOOL_CALL.to_owned()),
            (None, Some(candidate)) => stop_problem(text(candidate, "finishReason")),
        },
    }
}
