//! The caller itself: who it is, how to log in, and sessions of people. `docs/security.md` explains them.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use shared::auth::ApiToken;
use shared::config::AuthMode;
use shared::context::Ctx;
use shared::db::token::{self, NewSession, SessionEnded, TokenMade};
use shared::db::{Session, limit};
use shared::domain::access::{SESSION_FIELDS, SessionRequest};
use shared::domain::{Kind, TokenId};
use shared::error::Error;
use shared::http::Body;
use shared::view::{AuthSettings, Limits, TokenCreated, TokenEnded, Whoami};
use uuid::Uuid;

/// `GET /whoami` -> who the caller is, and what it may do.
pub async fn whoami(session: Session) -> Result<Json<Whoami>, Error> {
    token::whoami(&session).await.map(Json)
}

/// `GET /limits` -> `{limits, used}` of the caller's tenant.
pub async fn limits(session: Session) -> Result<Json<Limits>, Error> {
    limit::limits_of(&session).await.map(Json)
}

/// `GET /auth/config` -> how to log in. Anybody may ask.
pub async fn settings(State(ctx): State<Ctx>) -> Json<AuthSettings> {
    let auth = &ctx.config.auth;
    let mode = match auth.mode {
        Some(AuthMode::Local) => "local",
        Some(AuthMode::On) | None => "on",
    };
    let login = auth.login.as_ref();
    Json(AuthSettings {
        mode: mode.to_owned(),
        issuer: auth.issuer.as_ref().map(|issuer| issuer.issuer.clone()),
        auth_url: login.map(|login| login.url.clone()),
        publishable_key: login.map(|login| login.publishable_key.clone()),
    })
}

/// `POST /sessions {name, expires_in_s}`, with the JSON web token of a login -> 201 with the token of a session.
pub async fn create_session(session: Session, body: Body) -> Result<Response, Error> {
    let request = body.read_if_any(SESSION_FIELDS, |fields| Some(SessionRequest::read(fields)))?;
    let token = ApiToken::generate(Kind::Person, TokenId(Uuid::now_v7()), session.tenant().clone())?;
    let (secret_sha256, expires_in_s) = (token.hash().to_hex(), request.expires_in_s);
    let new = NewSession { id: token.id, name: &request.name, secret_sha256, expires_in_s };
    let made = token::session_create(&session, &new).await?;
    created(&token, made)
}

/// `DELETE /sessions/current` -> whether the session of the request ended.
pub async fn end_session(session: Session, body: Body) -> Result<Json<TokenEnded>, Error> {
    body.read_if_any(&[], |_| Some(()))?;
    let result = match token::session_end(&session).await? {
        SessionEnded::Ended => "ended",
        SessionEnded::Unchanged => "unchanged",
    };
    Ok(Json(TokenEnded { result: result.to_owned() }))
}

/// The answer with a new token. No other answer contains its secret.
pub(crate) fn created(token: &ApiToken, made: TokenMade) -> Result<Response, Error> {
    let expires_at = match made {
        TokenMade::Created { expires_at } => expires_at,
        TokenMade::RoleAbove => return Err(Error::invalid("role", "is higher than your own")),
        TokenMade::OwnerUnknown => return Err(Error::invalid("owner", "no member has this subject or e-mail address")),
        TokenMade::RoleAboveOwner => return Err(Error::invalid("role", "is higher than the owner's")),
        TokenMade::ScopeOutside { scopes } => {
            let message = format!("has permissions that the role and kind do not include: {}", scopes.join(", "));
            return Err(Error::invalid("scopes", message));
        }
    };
    let document = TokenCreated { id: token.id, token: token.expose(), expires_at };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(document)).into_response())
}
