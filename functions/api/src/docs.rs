//! The documents of the API. `make openapi` writes the JSON and the HTML. They contain no data of a tenant.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use shared::http::BasePath;

/// The pages run no scripts and load nothing from other servers.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /openapi.json`, with the address of this API and of its pages.
pub async fn openapi(base_path: BasePath) -> Response {
    const TEXT: &str = include_str!("../../../openapi.json");
    let top = base_path.to("/");
    if top == "/" {
        return document("application/json", TEXT);
    }
    let here = TEXT.replacen(r#""url": "/""#, &format!(r#""url": "{}""#, base_path.to("")), 1);
    document("application/json", here.replace("](/docs", &format!("]({top}docs")))
}

/// `GET /docs`: the same for people.
pub async fn reference() -> Response {
    document("text/html; charset=utf-8", include_str!("../assets/docs.html"))
}

/// `GET /docs/schemas`: the bodies of requests and answers.
pub async fn schemas() -> Response {
    document("text/html; charset=utf-8", include_str!("../assets/schemas.html"))
}

/// `GET /docs/errors`: `docs/errors.md`. The `type` of a problem document is the address of one of its sections.
pub async fn errors() -> Response {
    document("text/html; charset=utf-8", include_str!("../assets/errors.html"))
}

/// `GET /docs/style.css`.
pub async fn style() -> Response {
    document("text/css; charset=utf-8", include_str!("../assets/docs.css"))
}

fn document(media_type: &'static str, text: impl IntoResponse) -> Response {
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
