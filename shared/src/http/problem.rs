//! Problem documents (RFC 9457) of bounded size: texts from the client are shortened.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::base_path::BasePath;
use super::document::ProblemDocument;
use crate::domain::bounds::{json_bytes, shortened};
use crate::error::{Code, Error, Problem};
use crate::telemetry;

const PROBLEM_JSON: &str = "application/problem+json";
/// Maximum number of entries of `errors`, and their maximum size in total. So a document stays well below 64 KiB.
const MAX_ERRORS: usize = 100;
const MAX_ERRORS_BYTES: usize = 40 << 10;
const MAX_PATH_BYTES: usize = 300;
const MAX_MESSAGE_BYTES: usize = 600;
const MAX_DETAIL_BYTES: usize = 1_000;

/// The problem document of an answer, until it is completed.
#[derive(Debug, Clone)]
pub(super) struct Document(ProblemDocument);

impl Document {
    fn text(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

/// A problem document with the status of its code.
pub fn problem(code: Code, detail: &str, errors: &[Problem]) -> Response {
    let status = status_of(code);
    let mut document = ProblemDocument::new(code, title_of(status), shown(detail, MAX_DETAIL_BYTES));
    if !errors.is_empty() {
        document.errors = listed(errors);
        let (listed, more) = (document.errors.len(), errors.len() - document.errors.len());
        if more > 0 {
            document.detail = format!("{}: {listed} are listed, {} more are not", document.detail, grouped(more));
            document.more = Some(more);
        }
    }
    answer(status, document)
}

fn answer(status: StatusCode, document: ProblemDocument) -> Response {
    let document = Document(document);
    let headers = [(header::CONTENT_TYPE, PROBLEM_JSON)];
    let mut response = (status, headers, document.text()).into_response();
    response.extensions_mut().insert(document);
    response
}

fn title_of(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

fn status_of(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The code of an error answer that we did not write.
fn code_of(status: StatusCode) -> Code {
    let otherwise = if status.is_server_error() { Code::Internal } else { Code::Invalid };
    Code::ALL.iter().copied().find(|code| code.status() == status.as_u16()).unwrap_or(otherwise)
}

/// The `detail` of a problem answer, for functions that show it on a page.
pub fn detail_of(response: &Response) -> Option<&str> {
    response.extensions().get::<Document>().map(|document| document.0.detail.as_str())
}

/// Adds to a problem document the request's id, and the base path to its links. Replaces an error answer that we did not
/// write by a problem document, because libraries below the routes answer in plain text.
pub(super) fn completed(mut response: Response, id: &str, base_path: &BasePath, is_head: bool) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let document = response.extensions_mut().remove::<Document>();
    // A layer that rebuilds an answer loses the extension. Then the content type shows that we wrote it.
    let is_foreign = is_error && document.is_none() && !is_written_here(&response);
    let document = match document {
        Some(document) if response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON) => {
            Some(document)
        }
        _ if is_foreign => {
            let allow = response.headers().get(header::ALLOW).cloned();
            response = problem(code_of(status), "the request is not valid", &[]);
            response.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
            response.extensions_mut().remove::<Document>()
        }
        _ => None,
    };
    let Some(mut document) = document else { return response };
    document.0.request_id = Some(id.to_owned());
    document.0.kind = base_path.to(&document.0.kind);
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = if is_head { String::new() } else { document.text() };
    Response::from_parts(parts, body.into())
}

fn is_written_here(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"text/html") || kind.starts_with(b"application/"))
}

fn listed(errors: &[Problem]) -> Vec<Problem> {
    let mut bytes = 0;
    let short = errors
        .iter()
        .take(MAX_ERRORS)
        .map(|error| Problem::new(shown(&error.path, MAX_PATH_BYTES), shown(&error.message, MAX_MESSAGE_BYTES)));
    short
        .take_while(|error| {
            bytes += json_bytes(error);
            bytes <= MAX_ERRORS_BYTES
        })
        .collect()
}

/// A client's text for an answer: shortened, and without control characters.
pub fn shown(text: &str, most: usize) -> String {
    shortened(text, most).replace(char::is_control, "\u{fffd}")
}

/// 59900 as 59,900.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The answer with an error whose document has a member of its own.
fn explained(error: &Error) -> Response {
    let mut status = status_of(error.code());
    let mut document = ProblemDocument::new(error.code(), title_of(status), error.to_string());
    let mut retry_after = None;
    match error {
        Error::NotPermitted(permission) => document.permission = Some(shown(permission, MAX_PATH_BYTES)),
        Error::GateChanged(paths) => {
            document.changed = paths.iter().take(MAX_ERRORS).map(|path| shown(path, MAX_PATH_BYTES)).collect();
        }
        Error::Limited { limit, retry_after_s } => {
            document.limit = Some(shown(limit, MAX_PATH_BYTES));
            retry_after = retry_after_s.map(HeaderValue::from);
            if retry_after.is_none() {
                // A retry would not help.
                status = StatusCode::FORBIDDEN;
                (document.status, document.title) = (status.as_u16(), title_of(status).to_owned());
            }
        }
        _ => {}
    }
    let mut response = answer(status, document);
    response.headers_mut().extend(retry_after.map(|seconds| (header::RETRY_AFTER, seconds)));
    response
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let code = self.code();
        if status_of(code).is_server_error() {
            telemetry::report(&self, "answer a request");
        }
        match &self {
            Self::Invalid(problems) => problem(code, &self.to_string(), problems),
            Self::Unauthenticated => {
                let mut response = problem(code, &self.to_string(), &[]);
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            Self::NotPermitted(_) | Self::GateChanged(_) | Self::Limited { .. } => explained(&self),
            // Only the log has the cause.
            Self::Internal { .. } => problem(code, "this is a defect of ours; the log has the reason", &[]),
            _ => problem(code, &self.to_string(), &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn document(errors: &[Problem]) -> Value {
        let error = Error::Invalid(errors.to_vec());
        let mut response = error.into_response();
        serde_json::to_value(response.extensions_mut().remove::<Document>().unwrap().0).unwrap()
    }

    #[test]
    fn sixty_thousand_problems_are_a_small_document_that_counts_them() {
        let errors: Vec<_> = (0..60_000).map(|key| Problem::new(format!("key{key}"), "is not known")).collect();
        let document = document(&errors);
        assert_eq!(document["errors"].as_array().map(Vec::len), Some(100));
        assert_eq!(document["more"], 59_900);
        assert!(document["detail"].as_str().unwrap().ends_with("100 are listed, 59,900 more are not"), "{document}");
    }

    #[test]
    fn hostile_words_come_back_short_and_harmless() {
        let hostile = "\"\\\u{1b}[31m\n".repeat(100_000);
        let errors = vec![Problem::new(hostile.clone(), hostile); 500];
        let document = document(&errors);
        let text = document.to_string();
        assert!(text.len() < 64 << 10, "{} bytes", text.len());
        assert!(!text.contains("\\u001b") && !text.contains("\\n"));
        assert!(!document["errors"].as_array().unwrap().is_empty());
    }

    #[test]
    fn an_answer_says_what_its_reader_can_act_on() {
        let document = |error: Error| {
            let mut response = error.into_response();
            let document = response.extensions_mut().remove::<Document>().unwrap();
            (serde_json::to_value(document.0).unwrap(), response)
        };
        let (limited, response) = document(Error::Limited { limit: "open_runs".into(), retry_after_s: Some(30) });
        assert_eq!((response.status().as_u16(), &limited["limit"]), (429, &"open_runs".into()));
        assert_eq!(response.headers()[header::RETRY_AFTER], "30");
        let (full, response) = document(Error::Limited { limit: "stored_bytes".into(), retry_after_s: None });
        assert_eq!(
            (response.status().as_u16(), &full["status"], &full["title"]),
            (403, &403.into(), &"Forbidden".into())
        );
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
        let (changed, _) = document(Error::GateChanged(vec!["upstream.build".into(); 200]));
        assert_eq!(
            (changed["changed"].as_array().map(Vec::len), &changed["code"]),
            (Some(100), &"gate_changed".into())
        );
        let (refused, response) = document(Error::NotPermitted("gates.decide".into()));
        assert_eq!((response.status().as_u16(), &refused["permission"]), (403, &"gates.decide".into()));
        let (link, response) = document(Error::Conflict(Code::LinkUsed, "the link was used".into()));
        assert_eq!((response.status().as_u16(), &link["title"]), (410, &"Gone".into()));
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([7, 999, 1_000, 59_900, 1_234_567].map(grouped), ["7", "999", "1,000", "59,900", "1,234,567"]);
    }
}
