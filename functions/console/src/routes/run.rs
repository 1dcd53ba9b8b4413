//! A run.

use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use shared::context::Ctx;
use shared::db::console::{self, Focus, Run};
use shared::domain::RunId;
use shared::error::Error;
use shared::http::{Query, id_param};

use super::{cursor, failure, number};
use crate::page::{self, Base, RunPage};

/// `GET /ui/runs/{id}`.
pub async fn page(State(ctx): State<Ctx>, Path(id): Path<String>, query: Query) -> Response {
    let decided = query.get("decided").and_then(|id| id.parse().ok());
    let read = async || {
        let (before, mut focus) = (number(&query, "before")?, focus(&query)?);
        focus.gate = focus.gate.or(decided);
        Ok((before, find(&ctx, id_param("run", &id)?, focus, before).await?))
    };
    match read().await {
        Ok((before, run)) => {
            Html(page::run_page(&RunPage { base: Base::RUN, run: &run, decided, before })).into_response()
        }
        Err(error) => failure(Base::RUN, &error),
    }
}

/// `GET /ui/runs/{id}/fragment`: the script inserts it into the run's page, so its links are relative to that page.
pub async fn fragment(State(ctx): State<Ctx>, Path(id): Path<String>, query: Query) -> Response {
    let read = async || {
        let focus = focus(&query)?;
        find(&ctx, id_param("run", &id)?, focus, None).await
    };
    match read().await {
        Ok(run) => {
            let page = RunPage { base: Base::RUN, run: &run, decided: None, before: None };
            Html(page::run_live(&page).into_string()).into_response()
        }
        Err(error) => failure(Base::GATE, &error),
    }
}

/// Reads a run of the tenant.
async fn find(ctx: &Ctx, id: RunId, focus: Focus, before: Option<i64>) -> Result<Run, Error> {
    let run = console::run_fetch(&ctx.db, &ctx.config.tenant, id, focus, before).await?;
    run.ok_or_else(|| Error::NotFound(format!("run {id}")))
}

/// Which part of a large run to show.
fn focus(query: &Query) -> Result<Focus, Error> {
    Ok(Focus { steps_from: number(query, "steps")?.unwrap_or(0), gate: cursor(query, "gate")? })
}
