//! HTTP routes of plans, runs, timelines, artifacts, lineage, workspaces, rules, the policy, keys, health, and the documents
//! of the API.

mod artifacts;
#[cfg(feature = "openapi")]
pub mod contract;
mod control;
mod docs;
mod health;
mod keys;
mod plans;
mod policy;
mod queues;
mod rules;
mod run_filter;
mod runs;
mod steps;

use axum::Router;
use shared::context::Ctx;
use shared::http::Routes;

/// All routes of the function.
pub fn routes() -> Routes<Ctx> {
    const PAGE: &[&str] = &["after", "limit"];
    Routes::default()
        .get("/health", health::health)
        .post("/plans/check", plans::check)
        .get("/openapi.json", docs::openapi)
        .get("/docs", docs::reference)
        .get("/docs/errors", docs::errors)
        .get("/docs/style.css", docs::style)
        .post("/runs", runs::create)
        .get_with("/runs", run_filter::PARAMETERS, runs::list)
        .get("/runs/{id}", runs::fetch)
        .get("/runs/{id}/plan", runs::plan)
        .get_with("/runs/{id}/timeline", PAGE, runs::timeline)
        .get_with("/runs/{id}/gates", PAGE, runs::gates)
        .get("/runs/{id}/lineage", runs::lineage)
        .post("/runs/{id}/cancel", control::cancel)
        .post("/runs/{id}/pause", control::pause)
        .post("/runs/{id}/resume", control::resume)
        .post("/runs/{id}/retry", control::retry)
        .get_with("/runs/{id}/steps", PAGE, steps::list)
        .get("/runs/{id}/steps/{name}", steps::fetch)
        .get("/runs/{id}/steps/{name}/why", steps::why)
        .get_with("/runs/{id}/artifacts", PAGE, artifacts::list)
        .get("/keys", keys::list)
        .get("/queues", queues::list)
        .get("/queues/{handler}", queues::fetch)
        .post("/queues/{handler}/redrive", queues::redrive)
        .get_with("/rules", PAGE, rules::list)
        .get("/rules/{table}", rules::fetch)
        .put("/rules/{table}", rules::set)
        .delete("/rules/{table}", rules::delete)
        .get("/policy", policy::fetch)
        .put("/policy", policy::set)
        .get_with("/policy/history", PAGE, policy::history)
        .post("/workspaces", artifacts::create_workspace)
        .get("/artifacts/{id}", artifacts::fetch)
        .get("/artifacts/{id}/download", artifacts::download)
}

/// The function over a context.
pub fn router(ctx: Ctx) -> Router {
    routes().into_router(ctx.config.public_url.as_deref()).with_state(ctx)
}
