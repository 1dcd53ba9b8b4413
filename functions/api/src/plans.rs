//! Plans: check one before it is posted.

use axum::Json;
use axum::extract::State;
use shared::context::Ctx;
use shared::error::Error;
use shared::flow::check_plan::check_plan;
use shared::http::Body;
use shared::view::PlanChecked;

/// `POST /plans/check {plan}` -> 200 with the plan and its defaults, or the error that `POST /runs` would return.
/// Stores nothing.
pub async fn check(State(ctx): State<Ctx>, body: Body) -> Result<Json<PlanChecked>, Error> {
    check_plan(&ctx, &ctx.config.tenant, body.object()?).await.map(Json)
}
