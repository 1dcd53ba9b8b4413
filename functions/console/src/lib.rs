//! Pages for people: the list of runs with its inbox of gates, a run with its timeline, decisions about gates.
//!
//! Every link is relative to the page's own address, so the pages work below any prefix: a stage of API Gateway, the
//! base path of a custom domain, or none.

pub mod page;

mod assets;
mod csrf;
mod gates;
mod routes;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::any;
use shared::context::Ctx;
use shared::http::Routes;

/// What every answer says about what may run in, or around, its page. Nothing inline, nothing of others.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                                       form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// All routes of the function.
pub fn routes() -> Routes<Ctx> {
    Routes::default()
        .get("/ui", routes::home)
        .get_with("/ui/runs", &["after", "inbox"], routes::runs)
        .get_with("/ui/runs/{id}", &["before", "decided", "gate", "steps"], routes::run)
        .get_with("/ui/runs/{id}/fragment", &["gate", "steps"], routes::fragment)
        .get_with("/ui/artifacts/signed", &["id"], routes::signed_artifact)
        .post_form("/ui/gates/{id}/{verb}", &["actor", "reason", "csrf"], gates::decide)
        .get_with("/ui/static/app.css", &["v"], assets::css)
        .get_with("/ui/static/app.js", &["v"], assets::js)
}

/// The function over a context.
pub fn router(ctx: Ctx) -> Router {
    routes()
        .into_router(ctx.config.public_url.as_deref())
        // A page for whatever else is below `/ui`, and for what is asked in a way that no page answers.
        .route("/ui/{*rest}", any(routes::nowhere))
        .method_not_allowed_fallback(routes::wrong_method)
        .layer(middleware::from_fn(secure))
        .with_state(ctx)
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
