//! Routes that show pages.

use std::str::FromStr;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use shared::context::Ctx;
use shared::db::artifact;
use shared::db::console::{self, Focus, Run};
use shared::domain::{ArtifactId, RunId};
use shared::error::Error;
use shared::http::{Query, detail_of, id_param};
use shared::telemetry;

use crate::csrf;
use crate::page::{self, Base, Message, Notice, RunPage};

/// How long a signed URL is valid.
const SIGNED_URL_LIFETIME: Duration = Duration::from_mins(5);

/// `GET /ui`.
pub async fn home() -> Response {
    redirect("ui/runs")
}

/// `GET /ui/runs`: the runs after the run `after`, and the pending gates after the gate `inbox`.
pub async fn runs(State(ctx): State<Ctx>, query: Query) -> Response {
    let (after, inbox) = match (cursor(&query, "after"), cursor(&query, "inbox")) {
        (Ok(after), Ok(inbox)) => (after, inbox),
        (Err(error), _) | (_, Err(error)) => return failure(Base::TOP, &error),
    };
    match console::run_list(&ctx.db, &ctx.config.tenant, after, inbox).await {
        Ok(list) => Html(page::run_list(Base::TOP, &list)).into_response(),
        Err(error) => failure(Base::TOP, &error),
    }
}

/// `GET /ui/runs/{id}`.
pub async fn run(State(ctx): State<Ctx>, Path(id): Path<String>, query: Query, headers: HeaderMap) -> Response {
    let decided = query.get("decided").and_then(|id| id.parse().ok());
    let read = async || {
        let (before, mut focus) = (number(&query, "before")?, focus(&query)?);
        focus.gate = focus.gate.or(decided);
        Ok((before, find(&ctx, id_param("run", &id)?, focus, before).await?))
    };
    match read().await {
        Ok((before, run)) => show(&headers, |token| {
            let notice = decided.map(Notice::Decided);
            page::run_page(&RunPage { base: Base::RUN, run: &run, token, notice, before })
        }),
        Err(error) => failure(Base::RUN, &error),
    }
}

/// `GET /ui/runs/{id}/fragment`: the script inserts it into the run's page, so its links are relative to that page.
pub async fn fragment(State(ctx): State<Ctx>, Path(id): Path<String>, query: Query, headers: HeaderMap) -> Response {
    let read = async || {
        let focus = focus(&query)?;
        find(&ctx, id_param("run", &id)?, focus, None).await
    };
    match read().await {
        Ok(run) => show(&headers, |token| {
            let page = RunPage { base: Base::RUN, run: &run, token, notice: None, before: None };
            page::run_live(&page).into_string()
        }),
        Err(error) => failure(Base::GATE, &error),
    }
}

/// `GET /ui/artifacts/signed?id=`.
pub async fn signed_artifact(State(ctx): State<Ctx>, query: Query) -> Response {
    match sign(&ctx, query.get("id").unwrap_or_default()).await {
        Ok(url) => (StatusCode::FOUND, [(header::LOCATION, url)]).into_response(),
        Err(error) => failure(Base(1), &error),
    }
}

/// Unknown paths.
pub async fn not_found(uri: Uri) -> Response {
    failure(base_of(&uri), &Error::NotFound("This page".into()))
}

/// A known path with the wrong method, usually the reloaded address of a form.
pub async fn wrong_method(method: Method, uri: Uri) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let message = Message {
        title: "Method not allowed",
        sentence: "This address does not support the method of the request.",
        hint: Some("To decide a gate, use the buttons on the page of its run."),
    };
    (StatusCode::METHOD_NOT_ALLOWED, Html(page::message(base_of(&uri), &message))).into_response()
}

/// Turns a problem document, which the router sends for invalid requests, into a page.
pub fn error_as_page(uri: &Uri, response: Response) -> Response {
    let status = response.status();
    let is_page =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_page || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let sentence = detail_of(&response).unwrap_or("This address or form cannot be read.");
    let title = status.canonical_reason().unwrap_or("Invalid request");
    (status, Html(page::message(base_of(uri), &Message { title, sentence, hint: None }))).into_response()
}

/// A redirect that the browser follows with GET. `location` is relative to the request.
pub fn redirect(location: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

/// Reads a run of the tenant.
pub async fn find(ctx: &Ctx, id: RunId, focus: Focus, before: Option<i64>) -> Result<Run, Error> {
    let run = console::run_fetch(&ctx.db, &ctx.config.tenant, id, focus, before).await?;
    run.ok_or_else(|| Error::NotFound(format!("run {id}")))
}

/// A page with forms, with the cookie for their token.
pub fn show(headers: &HeaderMap, render: impl FnOnce(&str) -> String) -> Response {
    let token = csrf::token(headers);
    let mut response = Html(render(&token.value)).into_response();
    if let Some(cookie) = token.set_cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// An error as a page.
pub fn failure(base: Base, error: &Error) -> Response {
    let sentence = error.to_string();
    let (status, title, hint) = match error {
        Error::Invalid(_) => (StatusCode::BAD_REQUEST, "Invalid request", None),
        Error::NotFound(_) => {
            (StatusCode::NOT_FOUND, "Not found", Some("It does not exist, or it belongs to another tenant."))
        }
        Error::Conflict(..) => (StatusCode::CONFLICT, "Conflict", None),
        Error::Forbidden(_) => (StatusCode::FORBIDDEN, "Forbidden", None),
        Error::Unavailable { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "Temporarily unavailable", Some("Try again in a minute."))
        }
        Error::Internal { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "Internal error", Some("The log has the cause.")),
    };
    if status.is_server_error() {
        telemetry::report(error, "show a page");
    }
    (status, Html(page::message(base, &Message { title, sentence: &sentence, hint }))).into_response()
}

/// An id in the query, which our own links set.
fn cursor<T: FromStr>(query: &Query, name: &str) -> Result<Option<T>, Error> {
    query.get(name).filter(|id| !id.is_empty()).map(|id| id_param("page", id)).transpose()
}

fn number(query: &Query, name: &str) -> Result<Option<i64>, Error> {
    let number = query.get(name).map(|text| text.parse().ok().filter(|number| *number >= 0));
    match number {
        None => Ok(None),
        Some(None) => Err(Error::invalid(name, "must be a whole number")),
        Some(number) => Ok(number),
    }
}

/// Which part of a large run to show.
fn focus(query: &Query) -> Result<Focus, Error> {
    Ok(Focus { steps_from: number(query, "steps")?.unwrap_or(0), gate: cursor(query, "gate")? })
}

async fn sign(ctx: &Ctx, id: &str) -> Result<String, Error> {
    let id: ArtifactId = id_param("artifact", id)?;
    let row = artifact::artifact_fetch(&ctx.db, &ctx.config.tenant, id).await?;
    let row = row.ok_or_else(|| Error::NotFound(format!("artifact {id}")))?;
    let signed = ctx.storage.sign_download(&row.uri, SIGNED_URL_LIFETIME).await?;
    Ok(signed.url)
}

/// The depth of a path below `/ui/`.
fn base_of(uri: &Uri) -> Base {
    let below = uri.path().split_once("/ui/").map_or("", |(_, below)| below);
    Base(below.matches('/').count())
}
