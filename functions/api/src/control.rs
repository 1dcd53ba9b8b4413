//! Runs: cancel, pause, resume, retry.

use axum::Json;
use axum::extract::{Path, State};
use shared::context::Ctx;
use shared::db::Session;
use shared::db::run::Control;
use shared::domain::RunId;
use shared::error::Error;
use shared::flow::control_run::control_run;
use shared::http::{Body, id_param};
use shared::view::RunChange;

/// `POST /runs/{id}/cancel` -> the steps that will not start, and those whose results will not count.
pub async fn cancel(
    state: State<Ctx>,
    session: Session,
    path: Path<String>,
    body: Body,
) -> Result<Json<RunChange>, Error> {
    control(state, session, path, &body, Control::Cancel).await
}

/// `POST /runs/{id}/pause` -> the steps that are still running.
pub async fn pause(
    state: State<Ctx>,
    session: Session,
    path: Path<String>,
    body: Body,
) -> Result<Json<RunChange>, Error> {
    control(state, session, path, &body, Control::Pause).await
}

/// `POST /runs/{id}/resume`.
pub async fn resume(
    state: State<Ctx>,
    session: Session,
    path: Path<String>,
    body: Body,
) -> Result<Json<RunChange>, Error> {
    control(state, session, path, &body, Control::Resume).await
}

/// `POST /runs/{id}/retry` -> the run's next generation.
pub async fn retry(
    state: State<Ctx>,
    session: Session,
    path: Path<String>,
    body: Body,
) -> Result<Json<RunChange>, Error> {
    control(state, session, path, &body, Control::Retry).await
}

async fn control(
    State(ctx): State<Ctx>,
    session: Session,
    Path(id): Path<String>,
    body: &Body,
    control: Control,
) -> Result<Json<RunChange>, Error> {
    let id: RunId = id_param("run", &id)?;
    let actor = body.only_actor()?;
    control_run(&ctx, &session, id, control, &actor).await.map(Json)
}
