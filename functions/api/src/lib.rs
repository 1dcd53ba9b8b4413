//! HTTP routes of runs, timelines, artifacts, lineage, workspaces and health.

mod artifacts;
mod health;
mod page;
mod runs;
mod steps;

use axum::Router;
use shared::context::Ctx;
use shared::http::Routes;

/// All routes of the function.
pub fn routes() -> Routes<Ctx> {
    Routes::default()
        .get("/health", health::health)
        .post("/runs", runs::create)
        .get("/runs", runs::list)
        .get("/runs/{id}", runs::fetch)
        .get("/runs/{id}/timeline", runs::timeline)
        .get("/runs/{id}/gates", runs::gates)
        .get("/runs/{id}/lineage", runs::lineage)
        .post("/runs/{id}/cancel", runs::cancel)
        .post("/runs/{id}/pause", runs::pause)
        .post("/runs/{id}/resume", runs::resume)
        .post("/runs/{id}/retry", runs::retry)
        .get("/runs/{id}/steps/{name}/why", steps::why)
        .post("/workspaces", artifacts::create_workspace)
        .get("/artifacts/{id}", artifacts::fetch)
        .get("/artifacts/{id}/download", artifacts::download)
}

/// The function over a context.
pub fn router(ctx: Ctx) -> Router {
    routes().into_router().with_state(ctx)
}
