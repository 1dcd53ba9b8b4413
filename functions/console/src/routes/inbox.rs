//! The inbox of pending gates.

use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use shared::context::Ctx;
use shared::db::console;
use shared::http::Query;

use super::{cursor, failure};
use crate::page::{self, Base};

/// `GET /ui/inbox`: the pending gates after the gate `after`, oldest first.
pub async fn list(State(ctx): State<Ctx>, query: Query) -> Response {
    let read = async || console::inbox_list(&ctx.db, &ctx.config.tenant, cursor(&query, "after")?).await;
    match read().await {
        Ok(list) => Html(page::inbox(Base::TOP, &list)).into_response(),
        Err(error) => failure(Base::TOP, &error),
    }
}
