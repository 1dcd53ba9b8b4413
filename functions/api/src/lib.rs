//! HTTP routes of plans, runs, timelines, artifacts, lineage, workspaces, rules, the policy, the audit, keys, health, and the documents
//! of the API.

mod artifacts;
mod audit;
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
use shared::domain::principal::Permission;
use shared::error::Error;
use shared::http::Routes;

/// All routes of the function.
pub fn routes() -> Routes<Ctx> {
    use Permission::{
        ArtifactsRead, AuditRead, PlansCheck, PolicyRead, PolicyWrite, Public, QueuesRead, QueuesRedrive, RulesRead,
        RulesWrite, RunsControl, RunsCreate, RunsRead, WorkspacesCreate,
    };
    const PAGE: &[&str] = &["after", "limit"];
    Routes::default()
        .get(Public, "/health", health::health)
        .post(PlansCheck, "/plans/check", plans::check)
        .get(Public, "/openapi.json", docs::openapi)
        .get(Public, "/docs", docs::reference)
        .get(Public, "/docs/errors", docs::errors)
        .get(Public, "/docs/style.css", docs::style)
        .post(RunsCreate, "/runs", runs::create)
        .get_with(RunsRead, "/runs", run_filter::PARAMETERS, runs::list)
        .get(RunsRead, "/runs/{id}", runs::fetch)
        .get(RunsRead, "/runs/{id}/plan", runs::plan)
        .get_with(RunsRead, "/runs/{id}/timeline", PAGE, runs::timeline)
        .get_with(RunsRead, "/runs/{id}/gates", PAGE, runs::gates)
        .get(RunsRead, "/runs/{id}/lineage", runs::lineage)
        .post(RunsControl, "/runs/{id}/cancel", control::cancel)
        .post(RunsControl, "/runs/{id}/pause", control::pause)
        .post(RunsControl, "/runs/{id}/resume", control::resume)
        .post(RunsControl, "/runs/{id}/retry", control::retry)
        .get_with(RunsRead, "/runs/{id}/steps", PAGE, steps::list)
        .get(RunsRead, "/runs/{id}/steps/{name}", steps::fetch)
        .get(RunsRead, "/runs/{id}/steps/{name}/why", steps::why)
        .get_with(RunsRead, "/runs/{id}/artifacts", PAGE, artifacts::list)
        .get(Public, "/keys", keys::list)
        .get(QueuesRead, "/queues", queues::list)
        .get(QueuesRead, "/queues/{handler}", queues::fetch)
        .post(QueuesRedrive, "/queues/{handler}/redrive", queues::redrive)
        .get_with(RulesRead, "/rules", PAGE, rules::list)
        .get(RulesRead, "/rules/{table}", rules::fetch)
        .put(RulesWrite, "/rules/{table}", rules::set)
        .delete(RulesWrite, "/rules/{table}", rules::delete)
        .get(PolicyRead, "/policy", policy::fetch)
        .put(PolicyWrite, "/policy", policy::set)
        .get_with(PolicyRead, "/policy/history", PAGE, policy::history)
        .get_with(AuditRead, "/audit", audit::PARAMETERS, audit::list)
        .get_with(AuditRead, "/audit/export", PAGE, audit::export)
        .post(WorkspacesCreate, "/workspaces", artifacts::create_workspace)
        .get(ArtifactsRead, "/artifacts/{id}", artifacts::fetch)
        .get(ArtifactsRead, "/artifacts/{id}/download", artifacts::download)
}

/// The function over a context.
pub fn router(ctx: Ctx) -> Result<Router, Error> {
    Ok(routes().into_router(&ctx)?.with_state(ctx))
}
