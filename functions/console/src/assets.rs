//! The style sheet, the script and the icon. They are compiled into the binary, and their URLs contain a digest of their content.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use shared::domain::digest::hex;
use shared::http::Query;

/// A file that pages link to.
pub struct Asset {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
    version: String,
}

pub static CSS: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("static/app.css", "text/css; charset=utf-8", include_str!("../assets/app.css")));
pub static JS: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("static/app.js", "text/javascript; charset=utf-8", include_str!("../assets/app.js")));

pub static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("static/icon.svg", "image/svg+xml", include_str!("../assets/icon.svg")));

impl Asset {
    fn new(path: &'static str, media_type: &'static str, text: &'static str) -> Self {
        let mut version = hex(&Sha256::digest(text));
        version.truncate(16);
        Self { path, media_type, text, version }
    }

    /// The path below `/ui/`, with the version.
    pub fn path(&self) -> String {
        format!("{}?v={}", self.path, self.version)
    }

    fn response(&self, query: &Query) -> Response {
        let is_this_version = query.get("v") == Some(&self.version);
        // During a deployment an old function may receive a request for the new version. Browsers must not cache that
        // response.
        let cache = if is_this_version { "public, max-age=31536000, immutable" } else { "no-store" };
        let headers = [(header::CONTENT_TYPE, self.media_type), (header::CACHE_CONTROL, cache)];
        (headers, self.text).into_response()
    }
}

/// `GET /ui/static/app.css`.
pub async fn css(query: Query) -> Response {
    CSS.response(&query)
}

/// `GET /ui/static/icon.svg`.
pub async fn icon(query: Query) -> Response {
    ICON.response(&query)
}

/// `GET /ui/static/app.js`.
pub async fn js(query: Query) -> Response {
    JS.response(&query)
}
