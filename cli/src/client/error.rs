//! Errors of the API, with what the reader can do about them.

use std::fmt::{self, Write};

use nofx_local::report::printable;
use reqwest::StatusCode;
use serde::Deserialize;
use shared::domain::{Problem, RunId};

/// What kind of failure it was, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    NotFound,
    /// The API does not know who asks.
    NotLoggedIn,
    /// Nothing answers.
    Unreachable,
    /// The request was sent, and its answer did not come.
    NoAnswer,
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

    pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, ..Self::unreachable(message, hint) }
    }

    pub fn unreachable(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = Some(hint.into());
        Self { kind: Kind::Unreachable, code: String::new(), message: message.into(), hint, problems: Vec::new() }
    }

    pub fn no_answer(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: Kind::NoAnswer, ..Self::unreachable(message, hint) }
    }

    /// The error for an answer, with a line for each problem. `call` is the method and the path.
    pub fn of_answer(call: &str, status: StatusCode, text: &str) -> Self {
        let problem: ProblemDocument = serde_json::from_str(text).unwrap_or_default();
        let kind = match status {
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::UNAUTHORIZED => Kind::NotLoggedIn,
            _ => Kind::Refused,
        };
        if problem.code.is_empty() && is_page(text) && !is_of_gateway(status) {
            return Self { kind, ..Self::of_stranger(&format!("{call}: {status}")) };
        }
        let mut message = if problem.detail.is_empty() || status.is_server_error() || problem.code.is_empty() {
            technical(call, status, &problem, text)
        } else {
            sentence(call, &problem)
        };
        for Problem { path, message: what } in &problem.errors {
            let entry = format!("{}: {}", printable(path), printable(what));
            // A single problem is already in the detail.
            if !message.ends_with(&entry) {
                let _ = write!(message, "\n  {entry}");
            }
        }
        let hint = match problem.request_id {
            _ if problem.code == "outcome_unknown" => Some(LOOK_FIRST.to_owned()),
            Some(id) if status.is_server_error() => Some(format!("the request was {}; see the logs", printable(&id))),
            _ if problem.code == "not_found" => Some(lists(call, &problem.detail).to_owned()),
            _ => advice(&problem.code, status).map(str::to_owned),
        };
        Self { kind, code: problem.code, message, hint, problems: problem.errors }
    }

    /// The error for an answer that no control plane gives.
    pub fn of_stranger(what: &str) -> Self {
        let message = format!("{what}: this is no answer of a control plane");
        let hint = Some(WRONG_ADDRESS.to_owned());
        Self { kind: Kind::Refused, code: String::new(), message, hint, problems: Vec::new() }
    }
}

const WRONG_ADDRESS: &str = "check the address of the API: nofx profile list says where calls go and why";

const LOOK_FIRST: &str = "look whether it happened, for example with nofx show or nofx inbox, before you try again";

fn is_page(text: &str) -> bool {
    text.trim_start().starts_with('<')
}

/// Whether a proxy before the API may have given the answer.
fn is_of_gateway(status: StatusCode) -> bool {
    matches!(status.as_u16(), 403 | 429 | 500 | 502..=504)
}

/// What the API says, and its code for docs/errors.md where the sentence alone is not enough.
fn sentence(call: &str, problem: &ProblemDocument) -> String {
    let detail = printable(&problem.detail);
    match problem.code.as_str() {
        "not_found" if is_path(&detail) => format!("{call}: {detail}"),
        "not_found" | "invalid" => detail,
        code => format!("{detail} ({})", printable(code)),
    }
}

/// The request, the status, and whatever the answer says.
fn technical(call: &str, status: StatusCode, problem: &ProblemDocument, text: &str) -> String {
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
    message
}

/// Whether the API has no such path, so that the address itself is wrong.
fn is_path(detail: &str) -> bool {
    detail.starts_with("this path")
}

/// What lists the things among which one was not found.
fn lists(call: &str, detail: &str) -> &'static str {
    let path = call.split_once(' ').map_or(call, |(_, path)| path);
    let kind = path.trim_start_matches('/').split(['/', '?']).next().unwrap_or_default();
    match kind {
        _ if is_path(detail) => WRONG_ADDRESS,
        "gates" => "nofx inbox lists the gates that wait for a decision",
        "artifacts" => "nofx artifacts RUN lists what a run stored",
        "rules" => "nofx rules list lists the tables that have one",
        "tokens" => "nofx token list lists the tokens",
        "members" => "nofx member list lists the members",
        _ => "nofx runs lists the newest runs",
    }
}

/// What to do about a problem of this code.
fn advice(code: &str, status: StatusCode) -> Option<&'static str> {
    Some(match code {
        "unauthenticated" => "log in with nofx login, or put a token into NOFX_TOKEN",
        "forbidden" => "nofx whoami lists what you may do; an admin can give you another role",
        "last_admin" => "make somebody else an admin first: nofx member set SUB --role admin",
        "gate_decided" => "a decision stays; nofx timeline RUN says who decided, and nofx retry RUN asks again",
        "gate_expired" => "nofx retry RUN starts the run's next generation, which asks again",
        "run_finished" => "nofx show RUN says how it ended; nofx retry RUN starts what did not succeed again",
        "run_not_retryable" => "nofx run FILE starts a new run",
        "already_started" => "put the gate before a step that has not started",
        "policy_changed" => "read it with nofx policy get, and decide again",
        "too_large" => "put large content into a workspace or an artifact, not into the plan",
        "unavailable" | "not_taken" => "try again in a moment",
        "function_timed_out" | "function_failed" => "see the logs; nofx runs shows whether it happened",
        "" if status == StatusCode::FORBIDDEN => {
            "set AWS_PROFILE or AWS_ACCESS_KEY_ID if the API is at API Gateway; a profile with region signs requests to \
             a domain of your own"
        }
        "" if status == StatusCode::TOO_MANY_REQUESTS => "try again in a moment",
        "" if status.is_server_error() => "try again in a moment; if it stays so, see the logs of the deployment",
        _ => return None,
    })
}

/// The error, with the id of the run that its hint is about.
pub fn about_run(error: anyhow::Error, run: RunId) -> anyhow::Error {
    match error.downcast::<ApiError>() {
        Ok(error) => {
            let hint = error.hint.map(|hint| hint.replace("RUN", &run.to_string()));
            ApiError { hint, ..error }.into()
        }
        Err(error) => error,
    }
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
        let text = r#"{"title":"Bad Request","code":"invalid","detail":"the plan is invalid","errors":[{"path":"plan.steps[1].tool","message":"unknown tool"}]}"#;
        let error = message("POST /runs", StatusCode::BAD_REQUEST, text);
        assert_eq!(error, "the plan is invalid\n  plan.steps[1].tool: unknown tool");
        let single = r#"{"title":"Bad Request","code":"invalid","detail":"plan.steps: must not be empty","errors":[{"path":"plan.steps","message":"must not be empty"}]}"#;
        assert_eq!(message("POST /runs", StatusCode::BAD_REQUEST, single), "plan.steps: must not be empty");
        assert_eq!(message("GET /x", StatusCode::BAD_GATEWAY, "oops"), "GET /x: 502 Bad Gateway: oops");
        assert!(!message("GET /x", StatusCode::BAD_GATEWAY, "\u{1b}[2J").contains('\u{1b}'));
    }

    #[test]
    fn what_was_not_found_is_named_without_the_request() {
        let answer = |call: &str, what: &str| {
            let text = format!(r#"{{"title":"Not Found","code":"not_found","detail":"{what} was not found"}}"#);
            let error = ApiError::of_answer(call, StatusCode::NOT_FOUND, &text);
            (error.message, error.hint.unwrap())
        };
        let (message, hint) = answer("GET /runs/1/steps?limit=9", "run 1");
        assert_eq!((message.as_str(), hint.as_str()), ("run 1 was not found", "nofx runs lists the newest runs"));
        assert!(answer("POST /gates/1/approve", "gate 1").1.contains("nofx inbox"));
        assert!(answer("GET /artifacts/1", "artifact 1").1.contains("nofx artifacts RUN"));
        assert!(answer("GET /rules/x", "a rule for x").1.contains("nofx rules list"));
        let (message, hint) = answer("GET /runs", "this path");
        assert_eq!((message.as_str(), hint.as_str()), ("GET /runs: this path was not found", WRONG_ADDRESS));
    }

    #[test]
    fn an_answer_of_another_server_is_not_taken_for_one_of_the_api() {
        let page = "\n<!doctype html><html>no such page</html>";
        for status in [StatusCode::NOT_FOUND, StatusCode::NOT_IMPLEMENTED, StatusCode::METHOD_NOT_ALLOWED] {
            let error = ApiError::of_answer("GET /runs", status, page);
            let expected = format!("GET /runs: {status}: this is no answer of a control plane");
            assert_eq!((error.message, error.hint.as_deref()), (expected, Some(WRONG_ADDRESS)));
        }
        // A proxy before the API answers so too.
        assert!(message("GET /runs", StatusCode::BAD_GATEWAY, page).contains("no such page"));
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
        assert_eq!(decided.message, "d (gate_decided)");
        assert_eq!(answer(404, "not_found", "1").kind, Kind::NotFound);
        let internal = answer(500, "internal", "r-1");
        assert_eq!(internal.hint.as_deref(), Some("the request was r-1; see the logs"));
        assert_eq!(internal.message, "POST /x: 500 Internal Server Error (internal): d");
        assert_eq!(answer(400, "invalid", "1").hint, None);
        assert!(answer(503, "outcome_unknown", "r-1").hint.unwrap().starts_with("look whether it happened"));
    }

    #[test]
    fn every_advice_is_for_a_code_of_the_api() {
        let codes = shared::error::Code::ALL.iter().map(|code| code.as_str());
        let advised = codes.filter(|code| advice(code, StatusCode::CONFLICT).is_some()).count();
        assert_eq!(advised, 14);
    }
}
