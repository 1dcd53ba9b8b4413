//! The list of runs.

use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use shared::context::Ctx;
use shared::db::console;
use shared::http::Query;

use super::{cursor, failure};
use crate::page::{self, Base};

/// `GET /ui/runs`: the runs after the run `after`, and the pending gates after the gate `inbox`.
pub async fn list(State(ctx): State<Ctx>, query: Query) -> Response {
    let (after, inbox) = match (cursor(&query, "after"), cursor(&query, "inbox")) {
        (Ok(after), Ok(inbox)) => (after, inbox),
        (Err(error), _) | (_, Err(error)) => return failure(Base::TOP, &error),
    };
    match console::run_list(&ctx.db, &ctx.config.tenant, after, inbox).await {
        Ok(list) => Html(page::run_list(Base::TOP, &list)).into_response(),
        Err(error) => failure(Base::TOP, &error),
    }
}
