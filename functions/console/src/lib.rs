//! Web pages: runs with their steps and artifacts, decisions about gates, and what operators need.
//!
//! Every link is relative to the page's own address. So the pages work below any prefix: a stage of API Gateway, the
//! base path of a custom domain, or none.

pub mod axis;
pub mod graph;
pub mod page;

pub mod archive;
mod assets;
mod attempts;
pub mod content;
mod csrf;
pub mod evidence;
mod examples;
pub mod plan_text;
mod routes;
pub mod signature;
mod upload;
mod viewer;
pub mod write;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get};
use shared::context::Ctx;
use shared::domain::principal::Permission;
use shared::error::Error;
use shared::http::Routes;

/// Sent with every response. It allows no inline code, no content of other sites, and no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                                       form-action 'self'; base-uri 'none'; frame-ancestors 'none'; img-src 'self'";

/// The policy of a page that shows a picture of the artifact store: images of that store's origin too, and nothing else.
/// `None` if this is no URL.
fn policy_with_images(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
    let host = rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty())?;
    let is_plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    is_plain.then(|| format!("{CONTENT_SECURITY_POLICY} {scheme}://{host}"))
}

/// All routes of the function.
pub fn routes() -> Routes<Ctx> {
    use Permission::{
        AccountRead, ArtifactsDelete, ArtifactsRead, ArtifactsRestore, AuditRead, GatesDecide, GatesLink, MembersRead,
        MembersWrite, PlansCheck, PolicyRead, PolicyWrite, Public, QueuesRead, QueuesRedrive, RulesRead, RunsControl,
        RunsCreate, RunsRead, TokensRead, TokensWrite, UsageRead,
    };
    Routes::default()
        .get(RunsRead, "/ui", routes::home)
        .get_with(
            RunsRead,
            "/ui/runs/{id}",
            &["after", "before", "decided", "gate", "kind", "level", "state", "step", "steps", "still"],
            routes::run::page,
        )
        .post_form(RunsControl, "/ui/runs/{id}/pause", &["actor", "csrf"], routes::control::pause)
        .post_form(RunsControl, "/ui/runs/{id}/resume", &["actor", "csrf"], routes::control::resume)
        .post_form(RunsControl, "/ui/runs/{id}/cancel", &["actor", "csrf"], routes::control::cancel)
        .post_form(RunsControl, "/ui/runs/{id}/retry", &["actor", "csrf"], routes::control::retry)
        .get_with(
            RunsRead,
            "/ui/runs/{id}/fragment",
            &["gate", "kind", "level", "state", "step", "steps"],
            routes::run::fragment,
        )
        .get(RunsRead, "/ui/runs/{id}/lineage", routes::lineage::page)
        .get(ArtifactsRead, "/ui/runs/{id}/proof", routes::lineage::proof)
        .get_with(RunsRead, "/ui/runs/{id}/steps/{ordinal}", &["attempt", "rows"], routes::step::page)
        .get_with(PlansCheck, "/ui/new", &["example", "from"], routes::new::page)
        .post_upload(RunsCreate, "/ui/new", routes::new::start)
        .post_upload(PlansCheck, "/ui/new/check", routes::new::check)
        .get_with(PolicyRead, "/ui/policy", &["after"], routes::policy::page)
        .post_form(PolicyWrite, "/ui/policy", &["document", "version", "actor", "reason", "csrf"], routes::policy::set)
        .get_with(RulesRead, "/ui/rules", &["after"], routes::rules::list)
        .get(RulesRead, "/ui/rules/{table}", routes::rules::page)
        .get(RunsRead, "/ui/costs", routes::costs::page)
        .get(UsageRead, "/ui/usage", routes::usage::page)
        .get_with(QueuesRead, "/ui/health", &["redriven"], routes::health::page)
        .post_form(QueuesRedrive, "/ui/health/{handler}/redrive", &["actor", "csrf"], routes::health::redrive)
        .get_with(RunsRead, "/ui/runs", &["after", "by", "goal", "since", "status", "tool"], routes::runs::list)
        .get_with(RunsRead, "/ui/inbox", &["after", "all", "decided", "type"], routes::inbox::list)
        .get_with(ArtifactsRead, "/ui/artifacts/signed", &["id"], routes::artifact::signed)
        .get(ArtifactsRead, "/ui/artifacts/{id}", routes::artifact::page)
        .post_form(
            ArtifactsRestore,
            "/ui/artifacts/{id}/restore",
            &["days", "tier", "actor", "csrf"],
            routes::artifact::restore,
        )
        .post_form(ArtifactsDelete, "/ui/artifacts/{id}/delete", &["reason", "actor", "csrf"], routes::artifact::delete)
        .get_with(RunsRead, "/ui/gates/{id}", &["decided", "from", "rows", "write"], routes::gate::page)
        .post_form(
            GatesDecide,
            "/ui/gates/{id}/{verb}",
            &["actor", "reason", "digest", "csrf", "from"],
            routes::gate::decide,
        )
        .post_form(GatesLink, "/ui/gates/{id}/links", &["for", "days", "csrf"], routes::links::make)
        .get(RunsRead, "/ui/links/{token}", routes::links::page)
        .post_form(
            GatesDecide,
            "/ui/links/{token}",
            &["actor", "reason", "digest", "csrf", "decision"],
            routes::links::decide,
        )
        .get_with(Public, "/ui/login", &["next"], routes::login::form)
        .post_form(Public, "/ui/login", &["email", "password", "next", "csrf"], routes::login::log_in)
        .post_form(AccountRead, "/ui/logout", &["csrf"], routes::login::log_out)
        .get_with(MembersRead, "/ui/members", &["after"], routes::members::page)
        .post_form(MembersWrite, "/ui/members", &["subject", "role", "name", "email", "csrf"], routes::members::set)
        .post_form(MembersWrite, "/ui/members/remove", &["subject", "tokens_to", "csrf"], routes::members::remove)
        .get_with(AuditRead, "/ui/audit", &["after", "action", "actor"], routes::audit::page)
        .get_with(TokensRead, "/ui/tokens", &["sessions", "after"], routes::tokens::page)
        .post_form(TokensWrite, "/ui/tokens", &["kind", "name", "role", "days", "csrf"], routes::tokens::create)
        .post_form(TokensWrite, "/ui/tokens/{id}/revoke", &["csrf"], routes::tokens::revoke)
        .get_with(Public, "/ui/static/app.css", &["v"], assets::css)
        .get_with(Public, "/ui/static/app.js", &["v"], assets::js)
        .get_with(Public, "/ui/static/icon.svg", &["v"], assets::icon)
}

/// The function's router.
pub fn router(ctx: Ctx) -> Result<Router, Error> {
    let router = routes()
        .into_router(&ctx)?
        // Unknown paths below `/ui` and wrong methods get a page too.
        .route("/ui/", get(routes::home_below))
        .route("/ui/{*rest}", any(routes::not_found))
        .method_not_allowed_fallback(routes::wrong_method)
        .layer(middleware::from_fn_with_state(viewer::log_in(&ctx), with_security_headers))
        .with_state(ctx);
    Ok(router)
}

async fn with_security_headers(State(people_log_in): State<bool>, request: Request, next: Next) -> Response {
    let (uri, reads) = (request.uri().clone(), request.method() == Method::GET);
    let mut response = viewer::request(async {
        let response = next.run(request).await;
        match response.status() {
            // The login page itself says what is wrong.
            StatusCode::UNAUTHORIZED if people_log_in && !routes::is_page(&response) => {
                // The script of a page cannot show another page instead.
                let is_shown = reads && !uri.path().ends_with("/fragment");
                if is_shown { routes::login::to_login(&uri) } else { routes::login::session_ended(&uri) }
            }
            _ => routes::error_as_page(&uri, response),
        }
    })
    .await;
    let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
    response.headers_mut().entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
    let headers: [(HeaderName, &'static str); 3] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer` browsers would send `Origin: null` with our own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    // A page shows current data for one user, so do not cache it.
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_come_from_one_origin_only() {
        let policy = |url| policy_with_images(url);
        let signed = "https://bucket.s3.eu-west-1.amazonaws.com/runs/1/a.png?X-Amz-Signature=ab";
        let allowed = policy(signed).unwrap();
        assert_eq!(allowed.strip_prefix(CONTENT_SECURITY_POLICY), Some(" https://bucket.s3.eu-west-1.amazonaws.com"));
        assert!(policy("http://127.0.0.1:4566/b/k").unwrap().ends_with("; img-src 'self' http://127.0.0.1:4566"));
        for url in [
            "data:image/png;base64,AA",
            "javascript://a",
            "https://",
            "https://a b/",
            "https://a;script-src *",
            "https://*/",
            "https://u@h/",
        ] {
            assert_eq!(policy(url), None, "{url}");
        }
    }
}
