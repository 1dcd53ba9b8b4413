//! The HTTP gateway of the local stack, which takes the place of API Gateway. It converts each request into an event
//! for its function and returns the function's answer. If that fails, it answers with a problem document (RFC 9457)
//! that says whether a function took the request, or with a page that says it to a browser. It never sends a request
//! twice.

pub mod event;
mod page;
pub mod routes;
pub mod runtime_api;
pub mod server;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_sqs::primitives::DateTime;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use shared::domain::bounds;
use shared::error::Code;
use shared::http::ProblemDocument;
use tokio::time::timeout;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;
use uuid::Uuid;

use event::InvalidRequest;
use routes::Routes;
use runtime_api::{Failure, Functions};
use server::{BodyError, BytesInFlight, read_request};

/// Maximum size of a request's body, as at API Gateway.
pub const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;
/// Minimum size of an answer to compress for a client that accepts gzip. Equals `MinimumCompressionSize` in
/// template.yaml.
pub const MIN_COMPRESSED_BYTES: u16 = 1024;
/// How long a function may take, including the wait for a process: API Gateway's limit.
const ANSWER_LIMIT: Duration = Duration::from_secs(29);
/// How long a request may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// Maximum length of a function's error message in an answer.
const MAX_MESSAGE_BYTES: usize = 2_000;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The gateway: its routes, its functions, and its limits.
#[derive(Debug)]
pub struct Gateway {
    routes: Routes,
    functions: Arc<Functions>,
    in_flight: BytesInFlight,
    answer_limit: Duration,
}

/// A request that no function answered.
#[derive(Debug)]
struct Refusal {
    code: Code,
    detail: String,
    /// Set if no function took the request, so it can be sent again after this many seconds.
    retry_after_s: Option<u32>,
}

impl Refusal {
    fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after_s: None }
    }
}

impl Gateway {
    pub fn new(routes: Routes, functions: Arc<Functions>) -> Self {
        Self { routes, functions, in_flight: BytesInFlight::default(), answer_limit: ANSWER_LIMIT }
    }

    pub fn router(self) -> Router {
        let gzip = CompressionLayer::new().quality(CompressionLevel::Fastest);
        let gzip = gzip.compress_when(SizeAbove::new(MIN_COMPRESSED_BYTES));
        Router::new().fallback(answer).with_state(Arc::new(self)).layer(gzip)
    }

    async fn forward(&self, request: Request, id: Uuid) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let function =
            self.routes.function(path).ok_or_else(|| Refusal::new(Code::NotFound, "this path was not found"))?;
        // With DNS rebinding, a page of another site would count as one of our own.
        if !event::is_local_host(&parts.headers) {
            let detail = "this stack answers only to the hosts 127.0.0.1 and localhost";
            return Err(Refusal::new(Code::MisdirectedRequest, detail));
        }
        if announces_too_much(&parts.headers) {
            return Err(too_large());
        }
        let body = match timeout(BODY_LIMIT, read_request(body, MAX_BODY_BYTES, &self.in_flight)).await {
            Ok(Ok(body)) => body,
            Ok(Err(BodyError::TooLarge(_))) => return Err(too_large()),
            Ok(Err(BodyError::Overloaded)) => {
                let detail = "too many other requests are arriving; this one was not taken and may be sent again";
                return Err(Refusal { retry_after_s: Some(1), ..Refusal::new(Code::NotTaken, detail) });
            }
            Ok(Err(BodyError::Incomplete)) => {
                return Err(Refusal::new(Code::Invalid, "the body is incomplete"));
            }
            Err(_) => {
                let detail = format!("the body did not arrive within {} s", BODY_LIMIT.as_secs());
                return Err(Refusal::new(Code::RequestTimeout, detail));
            }
        };
        let event = event::from_request(&parts, &body, id, DateTime::from(SystemTime::now())).map_err(|unfit| {
            let detail = match unfit {
                InvalidRequest::Host => "the header host is not a valid host".to_owned(),
                InvalidRequest::Header(name) => format!("the value of the header {name} is not UTF-8"),
            };
            Refusal::new(Code::Invalid, detail)
        })?;
        let answer = self.functions.invoke(function, id, event.to_string().into(), self.answer_limit).await;
        let answer = answer.map_err(|failure| self.unanswered(function, failure))?;
        event::to_response(&answer).map_err(|problem| {
            let detail = format!("the function {function} returned an invalid answer: {problem}");
            Refusal::new(Code::FunctionFailed, detail)
        })
    }

    fn unanswered(&self, function: &str, failure: Failure) -> Refusal {
        let limit_s = self.answer_limit.as_secs();
        match failure {
            Failure::NotTaken => Refusal {
                code: Code::NotTaken,
                detail: format!(
                    "the function {function} did not take the request within {limit_s} s: it is starting, is being built, \
                     does not compile, or is busy; the request was withdrawn and may be sent again"
                ),
                retry_after_s: Some(2),
            },
            Failure::Ended => Refusal::new(
                Code::FunctionFailed,
                format!(
                    "the process of the function {function} ended before it answered; whether the request had an effect is not known"
                ),
            ),
            Failure::TimedOut => Refusal::new(
                Code::FunctionTimedOut,
                format!("the function {function} did not answer within {limit_s} s and may still be running"),
            ),
            Failure::Error(message) => {
                let message = bounds::shortened(&message, MAX_MESSAGE_BYTES);
                Refusal::new(Code::FunctionFailed, format!("the function {function} failed: {message}"))
            }
            Failure::TooLarge(size) => Refusal::new(
                Code::FunctionFailed,
                format!(
                    "the answer of the function {function} has at least {size} bytes; Lambda takes at most {}",
                    runtime_api::MAX_ANSWER_BYTES
                ),
            ),
        }
    }
}

async fn answer(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let id = Uuid::now_v7();
    let is_for_browser = page::is_wanted(request.uri().path(), request.headers());
    let answer = gateway.forward(request, id).await;
    let mut response = answer.unwrap_or_else(|refusal| problem(&refusal, id, is_for_browser));
    if !response.headers().contains_key(REQUEST_ID)
        && let Ok(value) = HeaderValue::try_from(id.to_string())
    {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// A problem document like those of the functions (`shared::http`), or a page.
fn problem(refusal: &Refusal, id: Uuid, is_for_browser: bool) -> Response {
    let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let title = status.canonical_reason().unwrap_or("Error");
    let mut document = ProblemDocument::new(refusal.code, title, refusal.detail.clone());
    document.request_id = Some(id.to_string());
    let mut response = if is_for_browser {
        (status, Html(page::of(refusal.code, title, &refusal.detail))).into_response()
    } else {
        let headers = [(header::CONTENT_TYPE, "application/problem+json")];
        (status, headers, serde_json::to_string(&document).unwrap_or_default()).into_response()
    };
    if let Some(seconds) = refusal.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn too_large() -> Refusal {
    Refusal::new(Code::TooLarge, format!("the body has more than {MAX_BODY_BYTES} bytes"))
}

/// Whether a client that waits before it sends its body (`Expect: 100-continue`) announces one that is too large.
fn announces_too_much(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    headers.contains_key(header::EXPECT) && length.is_some_and(|length| length > MAX_BODY_BYTES as u64)
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;
