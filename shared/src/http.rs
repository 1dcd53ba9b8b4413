//! Shared by the HTTP functions: the server loop, routes and their parameters, problem documents (RFC 9457).

mod admit;
mod base_path;
mod body;
mod caching;
#[cfg(feature = "openapi")]
pub mod contract;
mod cookie;
mod document;
mod etag;
mod event;
mod identify;
mod key_store;
mod link;
mod origin;
mod problem;
mod query;

pub use admit::{BodyKind, MAX_BODY_BYTES, MAX_UPLOAD_BYTES, Takes};
pub use base_path::BasePath;
pub use body::{ACTOR, Body, MAX_REASON_CHARS, REASON, actor, actor_of, json_body, reason, reason_of};
pub use cookie::{cookies, new_session_cookie, no_session_cookie, over_tls, session_cookie};
pub use document::ProblemDocument;
pub use etag::{Condition, Precondition};
pub use event::mend;
pub use identify::LoginRequest;
pub use link::link_url;
pub use origin::{Sender, sender};
pub use problem::{detail_of, problem, shown};
pub use query::{DEFAULT_LIMIT, Form, Query, encoded, next_link, not_given_out, page_of};

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{Extensions, HeaderMap, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use futures::FutureExt;
use lambda_http::request::{LambdaRequest, RequestContext};
use lambda_http::{Adapter, LambdaEvent};
use tower::ServiceExt;
use tracing::{Instrument, error, info, info_span};
use uuid::Uuid;

use crate::context::Ctx;
use crate::domain::principal::Permission;
use crate::error::{Code, Error};
use admit::{admit, from_our_site};
use base_path::without_base_path;
use caching::keep_apart;
use identify::{Access, identify, provide};
use link::loggable;

/// A router that lists its routes. Tests compare them with those of the template, of `cargo lambda watch` and of the
/// API's document.
pub struct Routes<S> {
    router: Router<S>,
    table: Vec<Route>,
}

/// A route of the list.
#[derive(Debug, Clone)]
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub takes: Takes,
    pub permission: Permission,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// A `GET` route without parameters.
    #[must_use]
    pub fn get<H: Handler<T, S>, T: 'static>(self, permission: Permission, path: &'static str, handler: H) -> Self {
        self.get_with(permission, path, &[], handler)
    }

    /// A `GET` route with the parameters of its query string.
    #[must_use]
    pub fn get_with<H: Handler<T, S>, T: 'static>(
        self,
        permission: Permission,
        path: &'static str,
        query: &'static [&'static str],
        handler: H,
    ) -> Self {
        self.add(Method::GET, path, permission, Takes { query, body: BodyKind::Nothing }, routing::get(handler))
    }

    /// A `POST` route that takes a JSON object.
    #[must_use]
    pub fn post<H: Handler<T, S>, T: 'static>(self, permission: Permission, path: &'static str, handler: H) -> Self {
        self.add(Method::POST, path, permission, Takes { query: &[], body: BodyKind::Json }, routing::post(handler))
    }

    /// A `PUT` route that takes a JSON object.
    #[must_use]
    pub fn put<H: Handler<T, S>, T: 'static>(self, permission: Permission, path: &'static str, handler: H) -> Self {
        self.add(Method::PUT, path, permission, Takes { query: &[], body: BodyKind::Json }, routing::put(handler))
    }

    /// A `DELETE` route. Its body may name the actor.
    #[must_use]
    pub fn delete<H: Handler<T, S>, T: 'static>(self, permission: Permission, path: &'static str, handler: H) -> Self {
        self.add(Method::DELETE, path, permission, Takes { query: &[], body: BodyKind::Json }, routing::delete(handler))
    }

    /// A `POST` route that takes the form of a page, with these fields.
    #[must_use]
    pub fn post_form<H: Handler<T, S>, T: 'static>(
        self,
        permission: Permission,
        path: &'static str,
        fields: &'static [&'static str],
        handler: H,
    ) -> Self {
        self.add(
            Method::POST,
            path,
            permission,
            Takes { query: &[], body: BodyKind::Form(fields) },
            routing::post(handler),
        )
    }

    /// A `POST` route that takes the form of a page with files.
    #[must_use]
    pub fn post_upload<H: Handler<T, S>, T: 'static>(
        self,
        permission: Permission,
        path: &'static str,
        handler: H,
    ) -> Self {
        self.add(Method::POST, path, permission, Takes { query: &[], body: BodyKind::Upload }, routing::post(handler))
    }

    /// Every route.
    pub fn table(&self) -> &[Route] {
        &self.table
    }

    /// The router. Its routes identify their callers, and refuse writes from pages of other sites. An error if the
    /// configuration does not say how callers are identified.
    pub fn into_router(self, ctx: &Ctx) -> Result<Router<S>, Error> {
        let access = Arc::new(Access::of(ctx)?);
        let public_url = ctx.config.public_url.clone();
        Ok(self
            .router
            .layer(middleware::from_fn_with_state(access, provide))
            .layer(middleware::from_fn_with_state(public_url, from_our_site)))
    }

    fn add(
        mut self,
        method: Method,
        path: &'static str,
        permission: Permission,
        takes: Takes,
        handler: MethodRouter<S>,
    ) -> Self {
        // The later layer is the outer one, so the function reads no body of a request without a valid credential.
        let handler = handler
            .route_layer(middleware::from_fn_with_state(takes, admit))
            .route_layer(middleware::from_fn_with_state(permission, identify));
        self.router = self.router.route(path, handler);
        self.table.push(Route { method, path, takes, permission });
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
    let function = Adapter::from(with_layers(router));
    let mended = |event: LambdaEvent<LambdaRequest>| LambdaEvent::new(mend(event.payload), event.context);
    lambda_runtime::run(ServiceExt::<LambdaEvent<LambdaRequest>>::map_request(function, mended)).await
}

/// Adds a request id and a log line to every answer, and a problem document if no route answers.
pub fn with_layers(router: Router) -> Router {
    let router = router
        .fallback(async || Error::NotFound("this path".into()).into_response())
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(observe));
    // Outside the router, because it changes the path that selects the route.
    Router::new().fallback_service(ServiceExt::<Request>::map_request(router, without_base_path))
}

/// Answers `OPTIONS`, and refuses other methods. The router adds the header `Allow`.
async fn wrong_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    problem(Code::MethodNotAllowed, "this path does not have this method", &[])
}

/// Logs a request with its id.
async fn observe(mut request: Request, next: Next) -> Response {
    let id = request_id(request.extensions());
    request.extensions_mut().insert(RequestId(id.clone()));
    let base_path = request.extensions().get().cloned().unwrap_or_default();
    let is_head = request.method() == Method::HEAD;
    let path = loggable(request.uri().path()).into_owned();
    let span = info_span!("request", request_id = id, method = %request.method(), path);
    async {
        let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let response = answer.unwrap_or_else(|_| {
            error!("the route panicked");
            problem(Code::Internal, "this is a defect of ours", &[])
        });
        info!(status = response.status().as_u16(), "answered");
        let mut response = problem::completed(response, &id, &base_path, is_head);
        keep_apart(&mut response);
        if let Ok(id) = id.parse() {
            response.headers_mut().insert("x-request-id", id);
        }
        response
    }
    .instrument(span)
    .await
}

/// The id of a request, for its routes.
#[derive(Clone)]
struct RequestId(String);

/// The address that sent the request, according to API Gateway.
fn source_ip(extensions: &Extensions) -> Option<IpAddr> {
    let ip = match extensions.get::<RequestContext>()? {
        RequestContext::ApiGatewayV1(context) => context.identity.source_ip.clone(),
        RequestContext::ApiGatewayV2(context) => context.http.source_ip.clone(),
        _ => None,
    };
    ip?.parse().ok()
}

/// The id of the invocation, which Lambda chooses and every log line of it has. A client can choose API Gateway's: with it,
/// many requests would count as one, and an entry of the audit would lead to another request.
fn request_id(extensions: &Extensions) -> String {
    let invocation = extensions.get::<lambda_runtime::Context>().map(|context| context.request_id.clone());
    let from_gateway = || match extensions.get::<RequestContext>()? {
        RequestContext::ApiGatewayV1(context) => context.request_id.clone(),
        RequestContext::ApiGatewayV2(context) => context.request_id.clone(),
        _ => None,
    };
    let is_given = |id: &String| !id.is_empty();
    let given = invocation.filter(is_given).or_else(|| from_gateway().filter(is_given));
    given.unwrap_or_else(|| Uuid::now_v7().to_string())
}

/// Parses an id in a path. A malformed id is not found.
pub fn id_param<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::NotFound(format!("{what} {}", shown(text, 80))))
}

/// A request header as text.
pub fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use lambda_runtime::Context;

    use super::*;

    fn id_of(invocation: Option<&str>, gateway: Option<&str>) -> String {
        let mut extensions = Extensions::new();
        if let Some(id) = invocation {
            let mut context = Context::default();
            context.request_id = id.to_owned();
            extensions.insert(context);
        }
        if let Some(id) = gateway {
            let event = serde_json::json!({"requestId": id, "http": {"method": "GET"}});
            extensions.insert(RequestContext::ApiGatewayV2(serde_json::from_value(event).unwrap()));
        }
        request_id(&extensions)
    }

    #[test]
    fn a_client_cannot_choose_the_id_of_its_request() {
        assert_eq!(id_of(Some("lambda"), Some("chosen")), "lambda");
        assert_eq!(id_of(Some("lambda"), None), "lambda");
        for none in [None, Some("")] {
            assert_eq!(id_of(none, Some("gateway")), "gateway");
            assert_ne!(id_of(none, None), id_of(none, Some("")), "a new one each time");
        }
    }

    #[tokio::test]
    async fn every_part_of_a_request_has_the_same_id() {
        let router = Router::new().route(
            "/",
            routing::get(|request: Request| async move {
                request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default()
            }),
        );
        let mut context = Context::default();
        context.request_id = "lambda".to_owned();
        let request = Request::get("/").header("x-request-id", "chosen").header("x-amzn-requestid", "chosen");
        let mut request = request.body(axum::body::Body::empty()).unwrap();
        request.extensions_mut().insert(context);
        let answer = with_layers(router).oneshot(request).await.unwrap();
        assert_eq!(answer.headers()["x-request-id"], "lambda");
        let body = axum::body::to_bytes(answer.into_body(), 100).await.unwrap();
        assert_eq!(body, "lambda");
    }
}
