//! The documents of the API. `make openapi` writes the JSON and the HTML. They contain no data of a tenant.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// The pages run no scripts and load nothing from other servers.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /openapi.json`.
pub async fn openapi() -> Response {
    document("application/json", include_str!("../../../openapi.json"))
}

/// `GET /docs`: the same for people.
pub async fn reference() -> Response {
    document("text/html; charset=utf-8", include_str!("../assets/docs.html"))
}

/// `GET /docs/errors`: `docs/errors.md`. The `type` of a problem document is the address of one of its sections.
pub async fn errors() -> Response {
    document("text/html; charset=utf-8", include_str!("../assets/errors.html"))
}

/// `GET /docs/style.css`.
pub async fn style() -> Response {
    document("text/css; charset=utf-8", include_str!("../assets/docs.css"))
}

fn document(media_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // They change only with a deployment. Readers should see the new ones soon after it.
        (header::CACHE_CONTROL, "public, max-age=60"),
    ];
    (headers, text).into_response()
}
