//! HTTP routes of callers, sessions, tokens, members, plans, runs, timelines, costs, artifacts, lineage, proofs, workspaces, rules, the policy,
//! the audit, keys, health, and the documents of the API.

mod account;
mod artifacts;
mod audit;
#[cfg(feature = "openapi")]
pub mod contract;
mod control;
mod costs;
mod docs;
mod health;
mod keys;
mod members;
mod plans;
mod policy;
mod proofs;
mod queues;
mod rules;
mod run_filter;
mod runs;
mod steps;
mod tokens;

use axum::Router;
use shared::context::Ctx;
use shared::domain::principal::Permission;
use shared::error::Error;
use shared::http::Routes;

/// All routes of the function.
pub fn routes() -> Routes<Ctx> {
    use Permission::{
        AccountRead, ArtifactsDelete, ArtifactsRead, ArtifactsRestore, AuditRead, MembersRead, MembersWrite,
        PlansCheck, PolicyRead, PolicyWrite, Public, QueuesRead, QueuesRedrive, RulesRead, RulesWrite, RunsControl,
        RunsCreate, RunsRead, SessionsCreate, TokensRead, TokensWrite, WorkspacesCreate,
    };
    const PAGE: &[&str] = &["after", "limit"];
    Routes::default()
        .get(Public, "/health", health::health)
        .get(Public, "/auth/config", account::settings)
        .get(AccountRead, "/whoami", account::whoami)
        .get(AccountRead, "/limits", account::limits)
        .post(SessionsCreate, "/sessions", account::create_session)
        .delete(AccountRead, "/sessions/current", account::end_session)
        .get_with(TokensRead, "/tokens", tokens::PARAMETERS, tokens::list)
        .post(TokensWrite, "/tokens", tokens::create)
        .delete(TokensWrite, "/tokens/{id}", tokens::revoke)
        .get_with(MembersRead, "/members", PAGE, members::list)
        .put(MembersWrite, "/members/{subject}", members::set)
        .delete(MembersWrite, "/members/{subject}", members::remove)
        .post(PlansCheck, "/plans/check", plans::check)
        .get(Public, "/openapi.json", docs::openapi)
        .get(Public, "/docs", docs::reference)
        .get(Public, "/docs/schemas", docs::schemas)
        .get(Public, "/docs/errors", docs::errors)
        .get(Public, "/docs/style.css", docs::style)
        .post(RunsCreate, "/runs", runs::create)
        .get_with(RunsRead, "/runs", run_filter::PARAMETERS, runs::list)
        .get(RunsRead, "/runs/{id}", runs::fetch)
        .get(RunsRead, "/runs/{id}/plan", runs::plan)
        .get_with(RunsRead, "/runs/{id}/timeline", PAGE, runs::timeline)
        .get_with(RunsRead, "/runs/{id}/gates", PAGE, runs::gates)
        .get_with(RunsRead, "/runs/{id}/lineage", runs::LINEAGE_PARAMETERS, runs::lineage)
        .get(RunsRead, "/runs/{id}/costs", costs::of_run)
        .get_with(RunsRead, "/costs", costs::PARAMETERS, costs::of_tenant)
        .get(ArtifactsRead, "/runs/{id}/proof", proofs::download)
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
        .post(ArtifactsRestore, "/artifacts/{id}/restore", artifacts::restore)
        .delete(ArtifactsDelete, "/artifacts/{id}", artifacts::delete)
}

/// The function over a context.
pub fn router(ctx: Ctx) -> Result<Router, Error> {
    Ok(routes().into_router(&ctx)?.with_state(ctx))
}
