//! A run.

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;
use shared::db::console::{self, Focus, Place, Run, Selection};
use shared::domain::{GateId, RunId, StepStatus};
use shared::error::Error;
use shared::http::{Query, id_param};

use super::{Visit, cursor, failure, number, show};
use crate::page::{self, Base, Filter, RunPage, Steps};

/// `GET /ui/runs/{id}`.
pub async fn page(visit: Visit, Path(id): Path<String>, query: Query, headers: HeaderMap) -> Response {
    let decided = query.get("decided").and_then(|id| id.parse().ok());
    let is_still = query.get("still").is_some();
    match read(&visit, &id, &query, decided).await {
        Ok((filter, run)) => {
            show(&headers, |token| page::run_page(&RunPage { decided, filter, is_still, ..RunPage::new(&run, token) }))
        }
        Err(error) => failure(Base::RUN, &error),
    }
}

/// `GET /ui/runs/{id}/fragment`: the script inserts it into the run's page, so its links are relative to that page.
pub async fn fragment(visit: Visit, Path(id): Path<String>, query: Query, headers: HeaderMap) -> Response {
    match read(&visit, &id, &query, None).await {
        Ok((filter, run)) => {
            show(&headers, |token| page::run_live(&RunPage { filter, ..RunPage::new(&run, token) }).into_string())
        }
        Err(error) => failure(Base::GATE, &error),
    }
}

/// Reads a run of the tenant.
async fn read(visit: &Visit, id: &str, query: &Query, gate: Option<GateId>) -> Result<(Filter, Run), Error> {
    let (mut focus, filter, selection) = (focus(query)?, filter(query)?, selection(query)?);
    focus.gate = focus.gate.or(gate);
    Ok((filter, find(visit, id_param("run", id)?, focus, &selection).await?))
}

/// A run of the tenant.
pub(super) async fn find(visit: &Visit, id: RunId, focus: Focus, selection: &Selection) -> Result<Run, Error> {
    let run = console::run_fetch(&visit.session, id, focus, selection).await?;
    run.ok_or_else(|| Error::NotFound(format!("run {id}")))
}

/// Which events to show: `?kind=gates,writes`, `?step=2`, `?before=100`, `?after=100`.
fn selection(query: &Query) -> Result<Selection, Error> {
    let place = match (number(query, "before")?, number(query, "after")?) {
        (None, None) => Place::Newest,
        (Some(seq), None) => Place::Before(seq),
        (None, Some(seq)) => Place::After(seq),
        (Some(_), Some(_)) => return Err(Error::invalid("after", "must not be set together with before")),
    };
    let kinds = query.get("kind").filter(|words| !words.is_empty());
    let kinds: Result<Vec<_>, _> = kinds.into_iter().flat_map(|words| words.split(',')).map(str::parse).collect();
    let kinds = kinds.map_err(|problem: String| Error::invalid("kind", &problem))?;
    let step = if query.get("step") == Some("") { None } else { number(query, "step")? };
    Ok(Selection { kinds, step, place })
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
