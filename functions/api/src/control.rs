//! Cancel, pause, resume, retry.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use shared::context::Ctx;
use shared::db::run::Control;
use shared::domain::RunId;
use shared::error::Error;
use shared::flow::control_run::control_run;
use shared::http::{Body, id_param};

/// `POST /runs/{id}/cancel` -> what was stopped, and what was running and will not count.
pub async fn cancel(state: State<Ctx>, path: Path<String>, body: Body) -> Result<Json<Value>, Error> {
    control(state, path, &body, Control::Cancel).await
}

/// `POST /runs/{id}/pause` -> what goes on running.
pub async fn pause(state: State<Ctx>, path: Path<String>, body: Body) -> Result<Json<Value>, Error> {
    control(state, path, &body, Control::Pause).await
}

/// `POST /runs/{id}/resume`.
pub async fn resume(state: State<Ctx>, path: Path<String>, body: Body) -> Result<Json<Value>, Error> {
    control(state, path, &body, Control::Resume).await
}

/// `POST /runs/{id}/retry` -> the run's next generation.
pub async fn retry(state: State<Ctx>, path: Path<String>, body: Body) -> Result<Json<Value>, Error> {
    control(state, path, &body, Control::Retry).await
}

async fn control(
    State(ctx): State<Ctx>,
    Path(id): Path<String>,
    body: &Body,
    control: Control,
) -> Result<Json<Value>, Error> {
    let id: RunId = id_param("run", &id)?;
    let actor = body.only_actor()?;
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
