//! The front of the local stack, in the place of API Gateway: it takes HTTP requests, hands each to its function as an
//! event, and gives the function's answer. Whatever goes wrong on the way is a problem document (RFC 9457) that says
//! what is known: nothing is sent twice.

pub mod event;
pub mod routes;
pub mod runtime_api;
pub mod server;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_sqs::primitives::DateTime;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use shared::domain::bounds;
use shared::error::Code;
use shared::http::ProblemDocument;
use tokio::time::timeout;
use uuid::Uuid;

use event::Unfit;
use routes::Routes;
use runtime_api::{Failure, Functions};
use server::{Arriving, Unread, read_request};

/// The largest body, as of API Gateway.
pub const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;
/// How long a function may take, waiting for its turn included: API Gateway's limit.
const ANSWER_LIMIT: Duration = Duration::from_secs(29);
/// How long a request may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// How much of what a function says of its failure is passed on.
const MAX_MESSAGE_BYTES: usize = 2_000;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the front knows.
#[derive(Debug)]
pub struct Front {
    routes: Routes,
    functions: Arc<Functions>,
    arriving: Arriving,
    answer_limit: Duration,
}

/// A request that no function answered.
#[derive(Debug)]
struct Refusal {
    code: Code,
    detail: String,
    /// Nobody took the request: it may be sent again, after so many seconds.
    retry_after_s: Option<u32>,
}

impl Refusal {
    fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after_s: None }
    }
}

impl Front {
    pub fn new(routes: Routes, functions: Arc<Functions>) -> Self {
        Self { routes, functions, arriving: Arriving::default(), answer_limit: ANSWER_LIMIT }
    }

    pub fn router(self) -> Router {
        Router::new().fallback(answer).with_state(Arc::new(self))
    }

    async fn pass_on(&self, request: Request, id: Uuid) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let function =
            self.routes.function(path).ok_or_else(|| Refusal::new(Code::NotFound, "this path was not found"))?;
        // A page whose name was made to lead here (DNS rebinding) would count as one of our own.
        if !event::is_local_host(&parts.headers) {
            let detail = "this stack answers to the hosts 127.0.0.1 and localhost alone";
            return Err(Refusal::new(Code::MisdirectedRequest, detail));
        }
        if announces_too_much(&parts.headers) {
            return Err(too_large());
        }
        let body = match timeout(BODY_LIMIT, read_request(body, MAX_BODY_BYTES, &self.arriving)).await {
            Ok(Ok(body)) => body,
            Ok(Err(Unread::TooLarge(_))) => return Err(too_large()),
            Ok(Err(Unread::Crowded)) => {
                let detail = "too many other requests are arriving; this one was not taken and may be sent again";
                return Err(Refusal { retry_after_s: Some(1), ..Refusal::new(Code::NotTaken, detail) });
            }
            Ok(Err(Unread::Broken)) => {
                return Err(Refusal::new(Code::Invalid, "the body ended before its end"));
            }
            Err(_) => {
                let detail = format!("the body did not arrive within {} s", BODY_LIMIT.as_secs());
                return Err(Refusal::new(Code::RequestTimeout, detail));
            }
        };
        let event = event::from_request(&parts, &body, id, DateTime::from(SystemTime::now())).map_err(|unfit| {
            let detail = match unfit {
                Unfit::Host => "the header host is no host of a URL".to_owned(),
                Unfit::Header(name) => format!("the value of the header {name} is not UTF-8"),
            };
            Refusal::new(Code::Invalid, detail)
        })?;
        let answer = self.functions.invoke(function, id, event.to_string().into(), self.answer_limit).await;
        let answer = answer.map_err(|failure| self.unanswered(function, failure))?;
        event::to_response(&answer).map_err(|problem| {
            let detail = format!("the function {function} gave an answer that cannot be passed on: {problem}");
            Refusal::new(Code::FunctionFailed, detail)
        })
    }

    fn unanswered(&self, function: &str, failure: Failure) -> Refusal {
        let limit_s = self.answer_limit.as_secs();
        match failure {
            Failure::NotTaken => Refusal {
                code: Code::NotTaken,
                detail: format!(
                    "the function {function} did not take the request within {limit_s} s: it starts, is being built, \
                     does not compile, or has too much to do; the request was withdrawn and may be sent again"
                ),
                retry_after_s: Some(2),
            },
            Failure::Ended => Refusal::new(
                Code::FunctionFailed,
                format!(
                    "the process of the function {function} ended before it answered; what it did before is not known"
                ),
            ),
            Failure::TimedOut => Refusal::new(
                Code::FunctionTimedOut,
                format!("the function {function} did not answer within {limit_s} s and may still be at work"),
            ),
            Failure::Error(message) => {
                let message = bounds::shortened(&message, MAX_MESSAGE_BYTES);
                Refusal::new(Code::FunctionFailed, format!("the function {function} failed: {message}"))
            }
            Failure::TooLarge(size) => Refusal::new(
                Code::FunctionFailed,
                format!(
                    "the answer of the function {function} has at least {size} bytes: Lambda takes {}",
                    runtime_api::MAX_ANSWER_BYTES
                ),
            ),
        }
    }
}

async fn answer(State(front): State<Arc<Front>>, request: Request) -> Response {
    let id = Uuid::now_v7();
    let mut response = front.pass_on(request, id).await.unwrap_or_else(|refusal| problem(&refusal, id));
    if !response.headers().contains_key(REQUEST_ID)
        && let Ok(value) = HeaderValue::try_from(id.to_string())
    {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The document that the functions give for problems of their own (`shared::http`), with the request's id.
fn problem(refusal: &Refusal, id: Uuid) -> Response {
    let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let title = status.canonical_reason().unwrap_or("Error");
    let mut document = ProblemDocument::new(refusal.code, title, refusal.detail.clone());
    document.request_id = Some(id.to_string());
    let headers = [(header::CONTENT_TYPE, "application/problem+json")];
    let mut response = (status, headers, serde_json::to_string(&document).unwrap_or_default()).into_response();
    if let Some(seconds) = refusal.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn too_large() -> Refusal {
    Refusal::new(Code::TooLarge, format!("the body has more than {MAX_BODY_BYTES} bytes"))
}

/// Who waits for leave to send a body (`Expect: 100-continue`) is refused before the body comes.
fn announces_too_much(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    headers.contains_key(header::EXPECT) && length.is_some_and(|length| length > MAX_BODY_BYTES as u64)
}

#[cfg(test)]
#[path = "front_tests.rs"]
mod tests;
