//! Health.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use shared::context::Ctx;
use shared::error::Error;

/// `GET /health` -> 200 when the database answers and holds our schema, else 503.
pub async fn health(State(ctx): State<Ctx>) -> Result<Json<Value>, Error> {
    let known: Option<bool> = ctx.db.query_value("select to_regclass('nofx.run') is not null", &[]).await?;
    if known == Some(true) {
        Ok(Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")})))
    } else {
        Err(Error::unavailable("the schema (run the migrations)", "no table nofx.run"))
    }
}
