//! HTTP routes of runs, timelines, artifacts, lineage, workspaces and health.

mod artifacts;
mod health;
mod page;
mod runs;
mod steps;

use axum::Router;
use axum::routing::{get, post};
use shared::context::Ctx;

/// All routes of the function.
pub fn router(ctx: Ctx) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/runs", post(runs::create).get(runs::list))
        .route("/runs/{id}", get(runs::fetch))
        .route("/runs/{id}/timeline", get(runs::timeline))
        .route("/runs/{id}/gates", get(runs::gates))
        .route("/runs/{id}/lineage", get(runs::lineage))
        .route("/runs/{id}/cancel", post(runs::cancel))
        .route("/runs/{id}/pause", post(runs::pause))
        .route("/runs/{id}/resume", post(runs::resume))
        .route("/runs/{id}/retry", post(runs::retry))
        .route("/runs/{id}/steps/{name}/why", get(steps::why))
        .route("/workspaces", post(artifacts::create_workspace))
        .route("/artifacts/{id}", get(artifacts::fetch))
        .route("/artifacts/{id}/download", get(artifacts::download))
        .with_state(ctx)
}
