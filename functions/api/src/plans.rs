//! Plans: check one before it is posted.

use axum::Json;
use axum::extract::State;
use shared::context::Ctx;
use shared::db::Session;
use shared::error::Error;
use shared::flow::check_plan::check_plan;
use shared::http::Body;
use shared::view::PlanChecked;

use crate::runs::starter;

/// `POST /plans/check {plan, actor}` -> 200 with the plan and its defaults, or the error that `POST /runs` would return.
/// Stores nothing.
pub async fn check(State(ctx): State<Ctx>, session: Session, body: Body) -> Result<Json<PlanChecked>, Error> {
    let body = body.object()?;
    starter(body)?;
    check_plan(&ctx, &session, body).await.map(Json)
}
