//! A run.

use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;
use shared::context::Ctx;
use shared::db::console::{self, Focus, Run};
use shared::domain::{RunId, StepStatus};
use shared::error::Error;
use shared::http::{Query, id_param};

use super::{cursor, failure, number};
use crate::page::{self, Base, Filter, RunPage, Steps};

/// `GET /ui/runs/{id}`.
pub async fn page(State(ctx): State<Ctx>, Path(id): Path<String>, query: Query) -> Response {
    let decided = query.get("decided").and_then(|id| id.parse().ok());
    let read = async || {
        let (before, mut focus) = (number(&query, "before")?, focus(&query)?);
        focus.gate = focus.gate.or(decided);
        Ok((before, filter(&query)?, find(&ctx, id_param("run", &id)?, focus, before).await?))
    };
    match read().await {
        Ok((before, filter, run)) => {
            Html(page::run_page(&RunPage { decided, filter, before, ..RunPage::new(&run) })).into_response()
        }
        Err(error) => failure(Base::RUN, &error),
    }
}

/// `GET /ui/runs/{id}/fragment`: the script inserts it into the run's page, so its links are relative to that page.
pub async fn fragment(State(ctx): State<Ctx>, Path(id): Path<String>, query: Query) -> Response {
    let read = async || {
        let (focus, filter) = (focus(&query)?, filter(&query)?);
        Ok((filter, find(&ctx, id_param("run", &id)?, focus, None).await?))
    };
    match read().await {
        Ok((filter, run)) => {
            let page = RunPage { filter, ..RunPage::new(&run) };
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

/// Which part of a large run to read.
fn focus(query: &Query) -> Result<Focus, Error> {
    Ok(Focus { gate: cursor(query, "gate")? })
}

/// Which steps to list: `?state=failed`, `?state=all`, `?level=3`, `?level=3-7`.
fn filter(query: &Query) -> Result<Filter, Error> {
    let from = number(query, "steps")?.unwrap_or(0);
    let given = |name| query.get(name).filter(|value| !value.is_empty());
    let steps = match (given("level"), given("state")) {
        (Some(levels), _) => {
            levels_of(levels).ok_or_else(|| Error::invalid("level", "must be a level, such as 3 or 3-7"))?
        }
        (None, None) => Steps::Usual,
        (None, Some("all")) => Steps::All,
        (None, Some(state)) => {
            let status: Result<StepStatus, ValueError> = StepStatus::deserialize(state.into_deserializer());
            Steps::State(status.map_err(|_| Error::invalid("state", "must be all or the state of a step"))?)
        }
    };
    Ok(Filter { from, steps })
}

fn levels_of(text: &str) -> Option<Steps> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(Steps::Levels(first.parse().ok()?, last.parse().ok()?))
}
