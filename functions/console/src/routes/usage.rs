//! What models were used for.

use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use shared::context::Ctx;
use shared::db::console;

use super::failure;
use crate::page::{Base, usage_page};

/// `GET /ui/usage`.
pub async fn page(State(ctx): State<Ctx>) -> Response {
    match console::usage_fetch(&ctx.db, &ctx.config.tenant).await {
        Ok(usage) => Html(usage_page(Base::TOP, &usage)).into_response(),
        Err(error) => failure(Base::TOP, &error),
    }
}
