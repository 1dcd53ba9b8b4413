//! Health check.

use axum::Json;
use axum::extract::State;
use shared::context::Ctx;
use shared::error::Error;
use shared::view::Health;

/// `GET /health` -> 200 if the database answers and has the schema `nofx`, else 503.
pub async fn health(State(ctx): State<Ctx>) -> Result<Json<Health>, Error> {
    if ctx.db.has_schema().await? {
        Ok(Json(Health { status: "ok".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }))
    } else {
        Err(Error::unavailable("the schema (run the migrations)", "no table nofx.run"))
    }
}
