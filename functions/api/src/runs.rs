//! Runs: create, list, read, control.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use shared::context::Ctx;
use shared::db::run::Control;
use shared::db::{artifact, event, gate, run};
use shared::domain::RunId;
use shared::error::Error;
use shared::flow::control_run::control_run;
use shared::flow::create_run::{Request, create_run};
use shared::http::{actor_of, header_text, id_param, json_body};

use crate::page::{self, next_link, run_cursor};

/// `POST /runs` -> 201 `{id, status}`; 200 when the same `Idempotency-Key` made that run before.
pub async fn create(State(ctx): State<Ctx>, headers: HeaderMap, body: Bytes) -> Result<Response, Error> {
    let body = json_body(&body)?;
    let request = Request {
        body: &body,
        idempotency_key: idempotency_key(&headers)?,
        traceparent: header_text(&headers, "traceparent"),
    };
    let accepted = create_run(&ctx, &ctx.config.tenant, &request).await?;
    let status = if accepted.created { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/runs/{}", accepted.id);
    let answer = json!({"id": accepted.id, "status": accepted.status});
    Ok((status, [(header::LOCATION, location)], Json(answer)).into_response())
}

/// `GET /runs?limit=&after=` -> `{runs, next}`, newest first.
pub async fn list(State(ctx): State<Ctx>, Query(query): Query<page::Query>) -> Result<Response, Error> {
    let limit = query.limit()?;
    let after = query.after_run()?;
    let runs = run::run_list(&ctx.db, &ctx.config.tenant, after.as_ref(), limit).await?;
    let next = runs
        .last()
        .filter(|_| i64::try_from(runs.len()) == Ok(limit))
        .and_then(|run| Some(run_cursor(run["created_at"].as_str()?, run["id"].as_str()?)));
    let mut response = Json(json!({"runs": runs, "next": next})).into_response();
    response.headers_mut().extend(next.as_deref().and_then(|next| next_link(next, limit)));
    Ok(response)
}

/// `GET /runs/{id}` -> `{run, steps, artifacts}`.
pub async fn fetch(State(ctx): State<Ctx>, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    let id: RunId = id_param("run", &id)?;
    run::run_fetch(&ctx.db, &ctx.config.tenant, id).await?.map(Json).ok_or_else(|| no_run(id))
}

/// `GET /runs/{id}/timeline?after=` -> events in order, a bare array.
pub async fn timeline(
    State(ctx): State<Ctx>,
    Path(id): Path<String>,
    Query(query): Query<page::Query>,
) -> Result<Response, Error> {
    let id: RunId = id_param("run", &id)?;
    let (after, limit) = (query.after_seq()?, query.limit()?);
    let events = event::event_list(&ctx.db, &ctx.config.tenant, id, after, limit).await?;
    if events.is_empty() {
        must_exist(&ctx, id).await?;
    }
    let next = events.last().filter(|_| i64::try_from(events.len()) == Ok(limit)).map(|event| event["seq"].to_string());
    let mut response = Json(events).into_response();
    response.headers_mut().extend(next.and_then(|next| next_link(&next, limit)));
    Ok(response)
}

/// `GET /runs/{id}/gates` -> a bare array.
pub async fn gates(State(ctx): State<Ctx>, Path(id): Path<String>) -> Result<Json<Vec<Value>>, Error> {
    let id: RunId = id_param("run", &id)?;
    let gates = gate::gate_list_of_run(&ctx.db, &ctx.config.tenant, id).await?;
    if gates.is_empty() {
        must_exist(&ctx, id).await?;
    }
    Ok(Json(gates))
}

/// `GET /runs/{id}/lineage` -> `{run_id, nodes, edges}`.
pub async fn lineage(State(ctx): State<Ctx>, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    let id: RunId = id_param("run", &id)?;
    artifact::run_lineage(&ctx.db, &ctx.config.tenant, id).await?.map(Json).ok_or_else(|| no_run(id))
}

/// `POST /runs/{id}/cancel` -> what was stopped, and what was running and will not count.
pub async fn cancel(state: State<Ctx>, path: Path<String>, body: Bytes) -> Result<Json<Value>, Error> {
    control(state, path, &body, Control::Cancel).await
}

/// `POST /runs/{id}/pause` -> what goes on running.
pub async fn pause(state: State<Ctx>, path: Path<String>, body: Bytes) -> Result<Json<Value>, Error> {
    control(state, path, &body, Control::Pause).await
}

/// `POST /runs/{id}/resume`.
pub async fn resume(state: State<Ctx>, path: Path<String>, body: Bytes) -> Result<Json<Value>, Error> {
    control(state, path, &body, Control::Resume).await
}

/// `POST /runs/{id}/retry` -> the run's next generation.
pub async fn retry(state: State<Ctx>, path: Path<String>, body: Bytes) -> Result<Json<Value>, Error> {
    control(state, path, &body, Control::Retry).await
}

async fn control(
    State(ctx): State<Ctx>,
    Path(id): Path<String>,
    body: &Bytes,
    control: Control,
) -> Result<Json<Value>, Error> {
    let id: RunId = id_param("run", &id)?;
    let actor = actor_of(&json_body(body)?)?;
    let done = control_run(&ctx, &ctx.config.tenant, id, control, &actor).await?;
    let mut answer = json!({"id": id, "status": done.status, "result": done.result});
    match control {
        Control::Cancel => {
            answer["stopped"] = json!(done.stopped);
            answer["was_running"] = json!(done.was_running);
        }
        Control::Pause => answer["still_running"] = json!(done.still_running),
        Control::Retry => answer["generation"] = json!(done.generation),
        Control::Resume => {}
    }
    Ok(Json(answer))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    match headers.get("idempotency-key") {
        None => Ok(None),
        Some(value) => value.to_str().map(Some).map_err(|_| Error::invalid("Idempotency-Key", "must be visible ASCII")),
    }
}

async fn must_exist(ctx: &Ctx, id: RunId) -> Result<(), Error> {
    if run::run_exists(&ctx.db, &ctx.config.tenant, id).await? { Ok(()) } else { Err(no_run(id)) }
}

fn no_run(id: RunId) -> Error {
    Error::NotFound(format!("run {id}"))
}
