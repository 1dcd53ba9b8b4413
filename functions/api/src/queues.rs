//! Queues of handlers: depths, dead letters, redrive. `docs/operating.md` explains them.

use axum::Json;
use axum::extract::{Path, State};
use shared::context::Ctx;
use shared::db::Session;
use shared::error::Error;
use shared::flow::queues;
use shared::http::Body;
use shared::view::{QueueDetail, QueueList, Redriven};
use uuid::Uuid;

/// `GET /queues` -> `{queues}`, how many messages each handler's queues hold.
pub async fn list(State(ctx): State<Ctx>, session: Session) -> Result<Json<QueueList>, Error> {
    queues::queue_list(&ctx, &session).await.map(Json)
}

/// `GET /queues/{handler}` -> the same for one handler, and at most 10 of its dead letters.
pub async fn fetch(
    State(ctx): State<Ctx>,
    session: Session,
    Path(handler): Path<String>,
) -> Result<Json<QueueDetail>, Error> {
    queues::queue_fetch(&ctx, &session, &handler).await.map(Json)
}

/// `POST /queues/{handler}/redrive {actor}` -> `{handler, moved, more}`. Moves at most 100 dead letters.
pub async fn redrive(
    State(ctx): State<Ctx>,
    session: Session,
    Path(handler): Path<String>,
    body: Body,
) -> Result<Json<Redriven>, Error> {
    let actor = body.only_actor()?;
    queues::redrive(&ctx, &session, Uuid::now_v7(), &handler, &actor).await.map(Json)
}
