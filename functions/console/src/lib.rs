//! Pages for people: the list of runs with its inbox of gates, a run with its timeline, decisions about gates.
//!
//! Every link is relative to the page's own address, so the pages work below any prefix: a stage of API Gateway, the
//! base path of a custom domain, or none.

pub mod page;
pub mod view;

mod assets;
mod csrf;
mod gates;
mod read;
mod routes;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use shared::context::Ctx;

/// What every answer says about what may run in, or around, its page. Nothing inline, nothing of others.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                                       form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A decision is a name and a reason.
const MAX_FORM_BYTES: usize = 32 << 10;

/// All routes of the function.
pub fn router(ctx: Ctx) -> Router {
    let pages = Router::new()
        .route("/ui", get(routes::home))
        .route("/ui/runs", get(routes::runs).fallback(routes::wrong_method))
        .route("/ui/runs/{id}", get(routes::run).fallback(routes::wrong_method))
        .route("/ui/runs/{id}/fragment", get(routes::fragment).fallback(routes::wrong_method))
        .route("/ui/artifacts/signed", get(routes::signed_artifact).fallback(routes::wrong_method))
        .route("/ui/gates/{id}/{verb}", post(gates::decide).fallback(routes::wrong_method))
        .route("/ui/static/app.css", get(assets::css))
        .route("/ui/static/app.js", get(assets::js))
        .route("/ui/{*rest}", get(routes::nowhere).fallback(routes::nowhere))
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(middleware::from_fn(secure));
    // `lambda_http` puts the stage of a REST API in front of the path unless it is told not to.
    Router::new().merge(pages.clone()).nest("/{stage}", pages).with_state(ctx)
}

async fn secure(request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let mut response = routes::as_page(&uri, next.run(request).await);
    let said: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer` browsers would send `Origin: null` along with our own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in said {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    // What a page shows is of this moment and of this reader.
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
