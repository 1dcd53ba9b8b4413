//! API tokens of agents and services, and sessions of people.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures::future;
use shared::auth::ApiToken;
use shared::db::console;
use shared::db::token::{self, NewToken, TokenMade, TokenRevoked};
use shared::domain::TokenId;
use shared::domain::access::TokenRequest;
use shared::domain::fields::Names;
use shared::error::Error;
use shared::http::{DEFAULT_LIMIT, Form, Query, id_param, not_given_out};
use uuid::Uuid;

use super::{Visit, cursor, failure, redirect, show};
use crate::csrf;
use crate::page::{Base, MadeToken, TOKEN_DAYS, TokensPage, tokens_page};

const FIELDS: &[Names] = &[&["kind"], &["name"], &["role"], &["owner"], &["days"], &["csrf"]];
const SECONDS_A_DAY: u32 = 86_400;

/// What a page shows besides the list.
#[derive(Default)]
struct Shown<'a> {
    sessions: bool,
    after: Option<TokenId>,
    made: Option<MadeToken<'a>>,
    why: Option<&'a str>,
}

/// `GET /ui/tokens?sessions=&after=`.
pub async fn page(visit: Visit, query: Query, headers: HeaderMap) -> Response {
    let sessions = match query.get("sessions") {
        None | Some("" | "false") => false,
        Some("true") => true,
        Some(_) => return failure(Base::TOP, &Error::invalid("sessions", "must be true or false")),
    };
    match cursor(&query, "after") {
        Ok(after) => {
            let shown = Shown { sessions, after, ..Shown::default() };
            show_page(&visit, &headers, &shown, StatusCode::OK).await
        }
        Err(error) => failure(Base::TOP, &error),
    }
}

/// `POST /ui/tokens`: the page with the new token. No other page shows it.
pub async fn create(visit: Visit, headers: HeaderMap, form: Form) -> Response {
    if let Err(sentence) = csrf::check(&headers, visit.ctx.config.public_url.as_deref(), form.text("csrf")) {
        return failure(Base::TOP, &Error::Forbidden(sentence.to_owned()));
    }
    let why = match make(&visit, &form).await {
        Ok((name, secret, TokenMade::Created { expires_at })) => {
            let made = MadeToken { name: &name, secret: &secret.expose(), expires_at: &expires_at };
            return show_page(&visit, &headers, &Shown { made: Some(made), ..Shown::default() }, StatusCode::OK).await;
        }
        Ok((_, _, TokenMade::RoleAbove)) => "The role is higher than your own.".to_owned(),
        Ok((_, _, TokenMade::OwnerUnknown)) => "No member has this subject or e-mail address.".to_owned(),
        Ok((_, _, TokenMade::RoleAboveOwner)) => "The role is higher than the owner's.".to_owned(),
        Ok((_, _, TokenMade::ScopeOutside { scopes })) => format!("This role does not have: {}.", scopes.join(", ")),
        Err(error @ Error::Invalid(_)) => format!("{error}."),
        Err(error) => return failure(Base::TOP, &error),
    };
    show_page(&visit, &headers, &Shown { why: Some(&why), ..Shown::default() }, StatusCode::BAD_REQUEST).await
}

/// `POST /ui/tokens/{id}/revoke`: redirects to the list (303).
pub async fn revoke(visit: Visit, Path(id): Path<String>, headers: HeaderMap, form: Form) -> Response {
    let base = Base::GATE;
    let id: TokenId = match id_param("token", &id) {
        Ok(id) => id,
        Err(error) => return failure(base, &error),
    };
    if let Err(sentence) = csrf::check(&headers, visit.ctx.config.public_url.as_deref(), form.text("csrf")) {
        return failure(base, &Error::Forbidden(sentence.to_owned()));
    }
    match token::token_revoke(&visit.session, id).await {
        Ok(TokenRevoked::Revoked | TokenRevoked::Unchanged) => redirect(&base.to("tokens")),
        Ok(TokenRevoked::NotFound) => failure(base, &Error::NotFound("This token".into())),
        Err(error) => failure(base, &error),
    }
}

/// A new token, with its name in records.
async fn make(visit: &Visit, form: &Form) -> Result<(String, ApiToken, TokenMade), Error> {
    let (request, days) = form.read(FIELDS, |fields| {
        let days = fields.read("days", |days| {
            let days = days.as_str().and_then(|days| days.parse().ok()).filter(|days| TOKEN_DAYS.contains(days));
            days.ok_or_else(|| "must be one of the choices".to_owned())
        });
        Some((TokenRequest::read(fields)?, days))
    })?;
    let token = ApiToken::generate(request.kind, TokenId(Uuid::now_v7()), visit.session.tenant().clone())?;
    let new = NewToken {
        id: token.id,
        kind: request.kind,
        name: &request.name,
        role: request.role,
        owner: request.owner.as_deref(),
        scopes: None,
        secret_sha256: token.hash().to_hex(),
        expires_in_s: days.map_or(request.expires_in_s, |days| days * SECONDS_A_DAY),
    };
    let made = token::token_create(&visit.session, &new).await?;
    Ok((format!("{}:{}", request.kind, request.name), token, made))
}

async fn show_page(visit: &Visit, headers: &HeaderMap, shown: &Shown<'_>, status: StatusCode) -> Response {
    let Shown { sessions, after, made, why } = *shown;
    let listed = token::token_list(&visit.session, sessions, after, DEFAULT_LIMIT);
    let (listed, waiting) = match future::try_join(listed, console::waiting(&visit.session)).await {
        Ok((Some(listed), waiting)) => (listed, waiting),
        Ok((None, _)) => return failure(Base::TOP, &not_given_out()),
        Err(error) => return failure(Base::TOP, &error),
    };
    let next = listed.next(|token| token.id.to_string());
    let mut response = show(headers, |token| {
        let base = Base::TOP;
        tokens_page(&TokensPage { base, token, waiting, tokens: &listed.items, sessions, next, made, why })
    });
    *response.status_mut() = status;
    response
}
