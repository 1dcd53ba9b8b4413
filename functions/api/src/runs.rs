//! Runs: create, list, read.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use serde_json::value::RawValue;
use shared::context::Ctx;
use shared::db::{Session, artifact, event, gate, run};
use shared::domain::{GateId, RunId};
use shared::error::Error;
use shared::flow::create_run::{Request, create_run};
use shared::http::{
    BasePath, Body, Condition, DEFAULT_LIMIT, Query, actor_of, header_text, id_param, next_link, not_given_out, page_of,
};
use shared::view::{RunCreated, RunDetail};

use crate::run_filter::ListQuery;
use crate::{artifacts, steps};

/// `POST /runs {plan, actor}` -> 201 `{id, status}`, or 200 if an earlier request with the same `Idempotency-Key` created the
/// run.
pub async fn create(
    State(ctx): State<Ctx>,
    session: Session,
    base_path: BasePath,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let body = body.object()?;
    let actor = starter(body)?;
    let request = Request {
        body,
        idempotency_key: idempotency_key(&headers)?,
        traceparent: header_text(&headers, "traceparent"),
        actor: actor.as_deref(),
    };
    let accepted = create_run(&ctx, &session, &request).await?;
    let status = if accepted.created { StatusCode::CREATED } else { StatusCode::OK };
    let location = base_path.to(&format!("/runs/{}", accepted.id));
    let answer = RunCreated { id: accepted.id, status: accepted.status };
    Ok((status, [(header::LOCATION, location)], Json(answer)).into_response())
}

/// `GET /runs?limit=&after=&status=&tool=&goal=&created_by=&created_from=&created_to=` -> `{runs, next}`, newest first.
pub async fn list(session: Session, query: Query) -> Result<Response, Error> {
    let ListQuery { filter, after, limit } = ListQuery::parse(&query)?;
    let page = run::run_list(&session, &filter, after, limit).await?;
    if let (true, None, Some(after)) = (page.runs.is_empty(), page.next, after)
        && !run::run_exists(&session, after).await?
    {
        return Err(not_given_out());
    }
    let next = page.next;
    Ok(page_of(page, next, &query))
}

/// `GET /runs/{id}` -> `{run, steps, artifacts}`: the run with the first page of its steps and of its artifacts. If
/// more follow, `steps_next` and `artifacts_next` are cursors for `GET /runs/{id}/steps` and `/artifacts`, and there is
/// a `Link` to each.
pub async fn fetch(
    session: Session,
    base_path: BasePath,
    Path(id): Path<String>,
    condition: Condition,
) -> Result<Response, Error> {
    let id: RunId = id_param("run", &id)?;
    let version = version(&session, id).await?;
    condition.answer(&version, async { detail(&session, &base_path, id).await }).await
}

async fn detail(session: &Session, base_path: &BasePath, id: RunId) -> Result<Response, Error> {
    // Read the run first. Its steps may then be newer than its state, but a run that has ended never shows an open
    // step.
    let mut run = run::run_fetch(session, id).await?.ok_or_else(|| no_run(id))?;
    if let Some(omitted) = &mut run.plan_omitted {
        omitted.href = base_path.to(&format!("/runs/{id}/plan"));
    }
    let steps = steps::page(session, base_path, id, None, DEFAULT_LIMIT).await?;
    let artifacts = artifacts::page(session, base_path, id, None, DEFAULT_LIMIT).await?;
    let (steps_next, artifacts_next) = (steps.next(|step| step.id), artifacts.next(|artifact| artifact.id));
    let link = |list: &str, next: String| next_link(&format!("{id}/{list}"), &next, DEFAULT_LIMIT);
    let links = [
        steps_next.and_then(|next| link("steps", next.to_string())),
        artifacts_next.and_then(|next| link("artifacts", next.to_string())),
    ];
    let detail = RunDetail { run, steps: steps.items, artifacts: artifacts.items, steps_next, artifacts_next };
    let mut response = Json(detail).into_response();
    for (name, link) in links.into_iter().flatten() {
        response.headers_mut().append(name, link);
    }
    Ok(response)
}

/// `GET /runs/{id}/plan` -> the plan as posted.
pub async fn plan(session: Session, Path(id): Path<String>) -> Result<Json<Box<RawValue>>, Error> {
    let id: RunId = id_param("run", &id)?;
    run::run_plan(&session, id).await?.map(Json).ok_or_else(|| no_run(id))
}

/// `GET /runs/{id}/timeline?after=` -> events in order, a bare array.
pub async fn timeline(
    session: Session,
    Path(id): Path<String>,
    query: Query,
    condition: Condition,
) -> Result<Response, Error> {
    let id: RunId = id_param("run", &id)?;
    let (after, limit) = (query.after_seq()?, query.limit()?);
    let version = version(&session, id).await?;
    let answer = async {
        let page = event::event_list(&session, id, after, limit).await?;
        let next = page.next(|event| event.seq);
        Ok(page_of(page.items, next, &query))
    };
    condition.answer(&version, answer).await
}

/// `GET /runs/{id}/gates?after=&limit=` -> a bare array, oldest first. No `ETag`: who may decide depends on more than the run.
pub async fn gates(session: Session, Path(id): Path<String>, query: Query) -> Result<Response, Error> {
    let id: RunId = id_param("run", &id)?;
    let (after, limit) = (query.after::<GateId>()?, query.limit()?);
    let page = gate::gate_list_of_run(&session, id, after, limit).await?;
    if page.items.is_empty() {
        version(&session, id).await?;
        if let Some(after) = after
            && !gate::gate_exists(&session, after).await?
        {
            return Err(not_given_out());
        }
    }
    let next = page.next(|gate| gate.id);
    Ok(page_of(page.items, next, &query))
}

pub const LINEAGE_PARAMETERS: &[&str] = &["format"];
pub const LINEAGE_FORMATS: [&str; 3] = ["json", "dot", "mermaid"];
/// Media types of the drawings.
pub const DOT: &str = "text/vnd.graphviz; charset=utf-8";
pub const MERMAID: &str = "text/plain; charset=utf-8";

/// `GET /runs/{id}/lineage?format=` -> `{run_id, nodes, edges}`, and `truncated: true` if there are more; or a drawing for
/// Graphviz or Mermaid.
pub async fn lineage(session: Session, Path(id): Path<String>, query: Query) -> Result<Response, Error> {
    let id: RunId = id_param("run", &id)?;
    let format = query.get("format").unwrap_or(LINEAGE_FORMATS[0]);
    if !LINEAGE_FORMATS.contains(&format) {
        return Err(Error::invalid("format", "must be json, dot or mermaid"));
    }
    let lineage = artifact::run_lineage(&session, id).await?.ok_or_else(|| no_run(id))?;
    Ok(match format {
        "dot" => ([(header::CONTENT_TYPE, DOT)], lineage.to_dot()).into_response(),
        "mermaid" => ([(header::CONTENT_TYPE, MERMAID)], lineage.to_mermaid()).into_response(),
        _ => Json(lineage).into_response(),
    })
}

/// Who starts a run, if the body names somebody.
pub fn starter(body: &Value) -> Result<Option<String>, Error> {
    let actor = body.get("actor").filter(|name| !name.is_null());
    let actor = actor.map(|name| actor_of(name.as_str().unwrap_or_default()));
    actor.transpose().map_err(|rule| Error::invalid("actor", rule))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let mut keys = headers.get_all("idempotency-key").iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (_, Some(_)) => Err(Error::invalid("Idempotency-Key", "must be given once")),
        (Some(value), None) => {
            // `to_str` lets tabs pass.
            let key = value.to_str().ok().filter(|key| !key.contains('\t'));
            key.map(Some).ok_or_else(|| Error::invalid("Idempotency-Key", "must be visible ASCII"))
        }
    }
}

/// The run's version. Fails if the run does not exist.
pub async fn version(session: &Session, id: RunId) -> Result<String, Error> {
    run::run_version(session, id).await?.ok_or_else(|| no_run(id))
}

pub fn no_run(id: RunId) -> Error {
    Error::NotFound(format!("run {id}"))
}
