//! The list of runs.

use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use shared::context::Ctx;
use shared::db::console;
use shared::http::Query;

use super::{cursor, failure};
use crate::page::{self, Base};

/// `GET /ui/runs`: the runs after the run `after`, newest first.
pub async fn list(State(ctx): State<Ctx>, query: Query) -> Response {
    let read = async || console::run_list(&ctx.db, &ctx.config.tenant, cursor(&query, "after")?).await;
    match read().await {
        Ok(list) => Html(page::run_list(Base::TOP, &list)).into_response(),
        Err(error) => failure(Base::TOP, &error),
    }
}
