//! Queues of handlers: depths, dead letters, redrive. `docs/operating.md` explains them.

use axum::Json;
use axum::extract::{Path, State};
use shared::context::Ctx;
use shared::error::Error;
use shared::flow::queues;
use shared::http::Body;
use shared::view::{QueueDetail, QueueList, Redriven};
use uuid::Uuid;

/// `GET /queues` -> `{queues}`, how many messages each handler's queues hold.
pub async fn list(State(ctx): State<Ctx>) -> Result<Json<QueueList>, Error> {
    queues::queue_list(&ctx).await.map(Json)
}

/// `GET /queues/{handler}` -> the same for one handler, and at most 10 of its dead letters.
pub async fn fetch(State(ctx): State<Ctx>, Path(handler): Path<String>) -> Result<Json<QueueDetail>, Error> {
    queues::queue_fetch(&ctx, &ctx.config.tenant, &handler).await.map(Json)
}

/// `POST /queues/{handler}/redrive {actor}` -> `{handler, moved, more}`. Moves at most 100 dead letters.
pub async fn redrive(State(ctx): State<Ctx>, Path(handler): Path<String>, body: Body) -> Result<Json<Redriven>, Error> {
    let actor = body.only_actor()?;
    queues::redrive(&ctx, &ctx.config.tenant, Uuid::now_v7(), &handler, &actor).await.map(Json)
}
