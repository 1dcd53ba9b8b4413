//! Errors of the API, with what the reader can do about them.

use std::fmt::{self, Write};

use nofx_local::report::printable;
use reqwest::StatusCode;
use serde::Deserialize;
use shared::domain::Problem;

/// What kind of failure it was, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    NotFound,
    /// Nothing answers.
    Unreachable,
    Refused,
}

#[derive(Debug)]
pub struct ApiError {
    pub kind: Kind,
    /// The code of the problem document. Empty if there is none.
    pub code: String,
    pub message: String,
    pub hint: Option<String>,
    /// Problems in the request.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// An RFC 9457 problem document.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ProblemDocument {
    title: String,
    code: String,
    detail: String,
    request_id: Option<String>,
    errors: Vec<Problem>,
}

impl ApiError {
    pub fn not_found(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = Some(hint.into());
        Self { kind: Kind::NotFound, code: "not_found".into(), message: message.into(), hint, problems: Vec::new() }
    }

    pub fn unreachable(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = Some(hint.into());
        Self { kind: Kind::Unreachable, code: String::new(), message: message.into(), hint, problems: Vec::new() }
    }

    /// The error for an answer, with a line for each problem. `call` is the method and the path.
    pub fn of_answer(call: &str, status: StatusCode, text: &str) -> Self {
        let problem: ProblemDocument = serde_json::from_str(text).unwrap_or_default();
        let mut message = format!("{call}: {status}");
        if !problem.code.is_empty() {
            let _ = write!(message, " ({})", printable(&problem.code));
        }
        for part in [printable(&problem.title), printable(&problem.detail)] {
            if !part.is_empty() && !message.contains(part.as_str()) {
                message.push_str(": ");
                message.push_str(&part);
            }
        }
        if problem.title.is_empty() && problem.detail.is_empty() && !text.is_empty() {
            message.push_str(": ");
            message.push_str(&truncated(text));
        }
        for entry in &problem.errors {
            let entry = format!("{}: {}", printable(&entry.path), printable(&entry.message));
            // A single problem is already in the detail.
            if !message.ends_with(&entry) {
                let _ = write!(message, "\n  {entry}");
            }
        }
        let hint = match problem.request_id {
            Some(id) if status.is_server_error() => Some(format!("the request was {}; see the logs", printable(&id))),
            _ => advice(&problem.code, status).map(str::to_owned),
        };
        let kind = if status == StatusCode::NOT_FOUND { Kind::NotFound } else { Kind::Refused };
        Self { kind, code: problem.code, message, hint, problems: problem.errors }
    }
}

/// What to do about a problem of this code.
fn advice(code: &str, status: StatusCode) -> Option<&'static str> {
    Some(match code {
        "not_found" => "nofx runs lists runs, nofx inbox the gates that wait, nofx artifacts RUN what a run stored",
        "gate_decided" => "a decision stays; nofx timeline RUN says who decided, and nofx retry RUN asks again",
        "gate_expired" => "nofx retry RUN starts the run's next generation, which asks again",
        "run_finished" => "nofx show RUN says how it ended; nofx retry RUN starts what did not succeed again",
        "run_not_retryable" => "only a run that failed or was cancelled can be retried; nofx run FILE starts a new one",
        "already_started" => "put the gate before a step that has not started",
        "policy_changed" => "read it with nofx policy get, and decide again",
        "too_large" => "put large content into a workspace or an artifact, not into the plan",
        "unavailable" | "not_taken" => "try again in a moment",
        "function_timed_out" | "function_failed" => "see the logs; nofx runs shows whether it happened",
        "" if status == StatusCode::FORBIDDEN => {
            "set AWS_PROFILE or AWS_ACCESS_KEY_ID if the API is at API Gateway; a profile with region signs requests to \
             a domain of your own"
        }
        _ => return None,
    })
}

/// The first 300 characters of a text.
pub fn truncated(text: &str) -> String {
    let end = text.char_indices().nth(300).map_or(text.len(), |(at, _)| at);
    printable(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(call: &str, status: StatusCode, text: &str) -> String {
        ApiError::of_answer(call, status, text).to_string()
    }

    #[test]
    fn an_error_lists_the_paths_of_all_problems() {
        let text = r#"{"title":"Bad Request","status":400,"detail":"the plan is invalid","errors":[{"path":"plan.steps[1].tool","message":"unknown tool"}]}"#;
        let error = message("POST /runs", StatusCode::BAD_REQUEST, text);
        assert_eq!(error, "POST /runs: 400 Bad Request: the plan is invalid\n  plan.steps[1].tool: unknown tool");
        let single = r#"{"title":"Bad Request","status":400,"detail":"plan.steps: must not be empty","errors":[{"path":"plan.steps","message":"must not be empty"}]}"#;
        let error = message("POST /runs", StatusCode::BAD_REQUEST, single);
        assert_eq!(error, "POST /runs: 400 Bad Request: plan.steps: must not be empty");
        assert_eq!(message("GET /x", StatusCode::BAD_GATEWAY, "oops"), "GET /x: 502 Bad Gateway: oops");
        assert!(!message("GET /x", StatusCode::BAD_GATEWAY, "\u{1b}[2J").contains('\u{1b}'));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let answer = |status, code: &str, id: &str| {
            let text = format!(r#"{{"title":"t","code":"{code}","detail":"d","request_id":"{id}"}}"#);
            ApiError::of_answer("POST /x", StatusCode::from_u16(status).unwrap(), &text)
        };
        let decided = answer(409, "gate_decided", "1");
        assert_eq!((decided.kind, decided.code.as_str()), (Kind::Refused, "gate_decided"));
        assert!(decided.hint.unwrap().contains("nofx retry RUN"));
        assert_eq!(answer(404, "not_found", "1").kind, Kind::NotFound);
        assert_eq!(answer(500, "internal", "r-1").hint.as_deref(), Some("the request was r-1; see the logs"));
        assert_eq!(answer(400, "invalid", "1").hint, None);
    }

    #[test]
    fn every_advice_is_for_a_code_of_the_api() {
        let codes = shared::error::Code::ALL.iter().map(|code| code.as_str());
        let advised = codes.filter(|code| advice(code, StatusCode::CONFLICT).is_some()).count();
        assert_eq!(advised, 12);
    }
}
