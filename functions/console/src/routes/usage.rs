//! What models were used for.

use axum::response::{Html, IntoResponse, Response};
use shared::db::console;

use super::Visit;
use super::failure;
use crate::page::{Base, usage_page};

/// `GET /ui/usage`.
pub async fn page(visit: Visit) -> Response {
    match console::usage_fetch(&visit.session).await {
        Ok(usage) => Html(usage_page(Base::TOP, &usage)).into_response(),
        Err(error) => failure(Base::TOP, &error),
    }
}
