//! Routes, a file a page. This file has what they share: errors as pages, redirects, values of the query.

pub mod artifact;
pub mod audit;
pub mod control;
pub mod costs;
pub mod document;
pub mod gate;
pub mod health;
pub mod inbox;
pub mod lineage;
pub mod links;
pub mod login;
pub mod members;
pub mod new;
pub mod policy;
pub mod rules;
pub mod run;
pub mod runs;
pub mod step;
pub mod tokens;
pub mod usage;

use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use shared::context::Ctx;
use shared::db::Session;
use shared::error::{Code, Error};
use shared::http::{Form, Query, detail_of, id_param};
use shared::telemetry;

use crate::page::{self, Base, Message, Unrecorded};
use crate::{csrf, viewer};

/// A request of a page: the function's clients, and the session of the caller.
pub struct Visit {
    ctx: Ctx,
    session: Session,
}

impl FromRequestParts<Ctx> for Visit {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, Error> {
        let session = Session::from_request_parts(parts, ctx).await?;
        viewer::enter(ctx, &session, &parts.headers);
        Ok(Self { ctx: ctx.clone(), session })
    }
}

/// `GET /ui`.
pub async fn home() -> Response {
    redirect("ui/runs")
}

/// `GET /ui/`, which people type.
pub async fn home_below() -> Response {
    redirect("runs")
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
        hint: Some("It takes what the buttons of a page send. Open that page and use them."),
    };
    (StatusCode::METHOD_NOT_ALLOWED, Html(page::message(base_of(&uri), &message))).into_response()
}

/// Turns a problem document, which the router sends for invalid requests, into a page.
pub fn error_as_page(uri: &Uri, response: Response) -> Response {
    let status = response.status();
    if is_page(&response) || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let sentence = detail_of(&response).unwrap_or("This address or form cannot be read.");
    let title = status.canonical_reason().unwrap_or("Invalid request");
    (status, Html(page::message(base_of(uri), &Message { title, sentence, hint: None }))).into_response()
}

/// Whether an answer is a page already.
pub fn is_page(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

/// A redirect that the browser follows with GET. `location` is relative to the request.
pub fn redirect(location: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
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
        Error::Conflict(Code::LinkUsed | Code::ArtifactDeleted, _) => (StatusCode::GONE, "No longer valid", None),
        Error::Conflict(..) | Error::GateChanged(_) => (StatusCode::CONFLICT, "Conflict", None),
        Error::Unauthenticated => (StatusCode::UNAUTHORIZED, "Not logged in", None),
        Error::Forbidden(_) | Error::NotPermitted(_) | Error::Excluded(..) => {
            (StatusCode::FORBIDDEN, "Forbidden", None)
        }
        Error::Limited { retry_after_s: None, .. } => (StatusCode::FORBIDDEN, "Limit reached", None),
        Error::Limited { .. } => (StatusCode::TOO_MANY_REQUESTS, "Limit reached", Some("Try again in a minute.")),
        Error::Unavailable { maybe_done: true, .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "No answer", Some("Look whether it was done before you try again."))
        }
        Error::Unavailable { .. } | Error::SigningUnavailable { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "Temporarily unavailable", Some("Try again in a minute."))
        }
        Error::Internal { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "Internal error", Some("The log has the cause.")),
    };
    if status.is_server_error() {
        telemetry::report(error, "show a page");
    }
    (status, Html(page::message(base, &Message { title, sentence: &sentence, hint }))).into_response()
}

/// A form that an outage kept from being recorded, perhaps: with all that was typed.
pub fn not_recorded(headers: &HeaderMap, error: &Error, page: Unrecorded<'_>) -> Response {
    telemetry::report(error, "record a form");
    let (why, maybe_done) = (error.to_string(), error.code() == Code::OutcomeUnknown);
    let mut response = show(headers, |token| page::unrecorded(&Unrecorded { token, why: &why, maybe_done, ..page }));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// Who acts, for a page that shows a form again: whoever has logged in, else the name in the form.
pub fn acting(form: &Form) -> String {
    viewer::principal().map_or_else(|| form.text("actor").to_owned(), |(who, _)| who.name)
}

/// An id in the query, which our own links set.
pub fn cursor<T: FromStr>(query: &Query, name: &str) -> Result<Option<T>, Error> {
    query.get(name).filter(|id| !id.is_empty()).map(|id| id_param("page", id)).transpose()
}

pub fn number(query: &Query, name: &str) -> Result<Option<i64>, Error> {
    /// More than any number of ours, and a query can still add to it.
    const MOST: i64 = 1 << 53;
    let number = query
        .get(name)
        .map(|text| text.parse().ok().filter(|number| *number >= 0))
        .map(|number| number.map(|number: i64| number.min(MOST)));
    match number {
        None => Ok(None),
        Some(None) => Err(Error::invalid(name, "must be a whole number")),
        Some(number) => Ok(number),
    }
}

/// The depth of a path below `/ui/`.
fn base_of(uri: &Uri) -> Base {
    let below = uri.path().split_once("/ui/").map_or("", |(_, below)| below);
    Base(below.matches('/').count())
}
