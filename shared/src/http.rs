//! What the HTTP functions share: the server loop, problem documents (RFC 9457), and what a request says of itself.

use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use futures::FutureExt;
use lambda_http::RequestExt;
use lambda_http::request::RequestContext;
use serde_json::{Value, json};
use tower::ServiceExt;
use tracing::{Instrument, error, info, info_span};
use uuid::Uuid;

use crate::error::{Error, Problem};
use crate::telemetry;

/// Largest body that is read: API Gateway lets 10 MB pass, a plan has at most 1 MiB.
pub const MAX_BODY_BYTES: usize = 2 << 20;

/// A router that knows its routes: the template's and those of `cargo lambda watch` are held against them.
pub struct Routes<S> {
    router: Router<S>,
    table: Vec<(Method, &'static str)>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    #[must_use]
    pub fn get<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add(Method::GET, path, routing::get(handler))
    }

    #[must_use]
    pub fn post<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add(Method::POST, path, routing::post(handler))
    }

    /// Method and path of every route.
    pub fn table(&self) -> &[(Method, &'static str)] {
        &self.table
    }

    pub fn into_router(self) -> Router<S> {
        self.router
    }

    fn add(mut self, method: Method, path: &'static str, handler: MethodRouter<S>) -> Self {
        self.router = self.router.route(path, handler);
        self.table.push((method, path));
        self
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self { router: Router::new(), table: Vec::new() }
    }
}

/// Serves a router until the process ends. The `main` of an HTTP function.
pub async fn run(router: Router) -> Result<(), lambda_http::Error> {
    lambda_http::run(with_layers(router)).await
}

/// The router with what every answer has: a request id, a log line, problem documents for what no route answers.
pub fn with_layers(router: Router) -> Router {
    let router = router
        .fallback(async || Error::NotFound("this path".into()).into_response())
        .method_not_allowed_fallback(async || {
            problem(StatusCode::METHOD_NOT_ALLOWED, "this path does not answer this method", &[])
        })
        .layer(middleware::from_fn(observe));
    // Outside the router, because it decides which route is found.
    Router::new().fallback_service(ServiceExt::<Request>::map_request(router, without_stage))
}

/// A REST API's stage (`/prod/runs`) is part of the path that the runtime gives; routes are written without it.
fn without_stage(mut request: Request) -> Request {
    let path = request.raw_http_path();
    if !path.is_empty() && path != request.uri().path() && request.uri().path().ends_with(path) {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        if let Ok(uri) = format!("{path}{query}").parse() {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The id under which a request is found in the logs: API Gateway's, or the caller's, or a new one.
async fn observe(request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let span = info_span!("request", request_id = id, method = %request.method(), path = request.uri().path());
    async {
        let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let response = answer.unwrap_or_else(|_| {
            error!("the route panicked");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "this is a defect of ours", &[])
        });
        info!(status = response.status().as_u16(), "answered");
        with_request_id(response, &id).await
    }
    .instrument(span)
    .await
}

async fn with_request_id(response: Response, id: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Ok(value) = id.parse() {
        parts.headers.insert("x-request-id", value);
    }
    let is_problem = parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| value == PROBLEM_JSON);
    if !is_problem {
        return Response::from_parts(parts, body);
    }
    let bytes = axum::body::to_bytes(body, MAX_BODY_BYTES).await.unwrap_or_default();
    let mut document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    document["request_id"] = json!(id);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, document.to_string().into())
}

fn request_id(request: &Request) -> String {
    let from_gateway = match request.extensions().get::<RequestContext>() {
        Some(RequestContext::ApiGatewayV1(context)) => context.request_id.clone(),
        Some(RequestContext::ApiGatewayV2(context)) => context.request_id.clone(),
        _ => None,
    };
    from_gateway.unwrap_or_else(|| Uuid::now_v7().to_string())
}

const PROBLEM_JSON: &str = "application/problem+json";

/// A problem document.
pub fn problem(status: StatusCode, detail: &str, errors: &[Problem]) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let mut document = json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail});
    if !errors.is_empty() {
        document["errors"] = json!(errors);
    }
    (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], document.to_string()).into_response()
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) | Self::Stale(_) => StatusCode::CONFLICT,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            telemetry::report(&self, "answer a request");
        }
        match &self {
            Self::Invalid(problems) => problem(status, &self.to_string(), problems),
            // What broke inside is for the log.
            Self::Internal { .. } => problem(status, "this is a defect of ours; the log has the reason", &[]),
            _ => problem(status, &self.to_string(), &[]),
        }
    }
}

/// The body as JSON; an empty one is `null`.
pub fn json_body(bytes: &Bytes) -> Result<Value, Error> {
    if bytes.len() > MAX_BODY_BYTES {
        return Err(Error::invalid("", format!("the body has more than {MAX_BODY_BYTES} bytes")));
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|error| Error::invalid("", format!("the body is not JSON: {error}")))
}

/// A path parameter that is an id. Anything else cannot exist.
pub fn id_param<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::NotFound(format!("{what} {}", text.escape_debug())))
}

/// A request header as text.
pub fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Who asks, as far as that is known before identity exists: the name given in the body, else the API's caller.
pub fn actor_of(body: &Value) -> Result<String, Error> {
    for key in ["actor", "approved_by", "approvedBy"] {
        match &body[key] {
            Value::Null => {}
            Value::String(name) if !name.trim().is_empty() && name.chars().count() <= 200 => {
                return Ok(name.trim().to_owned());
            }
            _ => return Err(Error::invalid(key, "must be a name of 1 to 200 characters")),
        }
    }
    Ok("anonymous".to_owned())
}
