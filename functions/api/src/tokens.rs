//! API tokens of agents and services: create, list, revoke. `docs/security.md` explains them.

use axum::Json;
use axum::extract::Path;
use axum::response::Response;
use shared::auth::ApiToken;
use shared::db::Session;
use shared::db::token::{self, NewToken, TokenRevoked};
use shared::domain::TokenId;
use shared::domain::access::{TOKEN_FIELDS, TokenRequest};
use shared::error::Error;
use shared::http::{Body, Query, id_param, not_given_out, page_of};
use shared::view::{TokenEnded, TokenPage};
use uuid::Uuid;

use crate::account::created;

/// Parameters of `GET /tokens`.
pub const PARAMETERS: &[&str] = &["sessions", "after", "limit"];

/// `GET /tokens?sessions=&after=&limit=` -> `{tokens, next}`, newest first: those of agents and services, or with
/// `sessions=true` those of people.
pub async fn list(session: Session, query: Query) -> Result<Response, Error> {
    let (after, limit) = (query.after::<TokenId>()?, query.limit()?);
    let sessions = match query.get("sessions") {
        None | Some("" | "false") => false,
        Some("true") => true,
        Some(_) => return Err(Error::invalid("sessions", "must be true or false")),
    };
    let page = token::token_list(&session, sessions, after, limit).await?.ok_or_else(not_given_out)?;
    let next = page.next(|token| token.id);
    Ok(page_of(TokenPage { tokens: page.items, next }, next, &query))
}

/// `POST /tokens {kind, name, role, owner, scopes, expires_in_s}` -> 201 with the token, which nobody can read again.
pub async fn create(session: Session, body: Body) -> Result<Response, Error> {
    let request = body.read(TOKEN_FIELDS, TokenRequest::read)?;
    let token = ApiToken::generate(request.kind, TokenId(Uuid::now_v7()), session.tenant().clone())?;
    let new = NewToken {
        id: token.id,
        kind: request.kind,
        name: &request.name,
        role: request.role,
        owner: request.owner.as_deref(),
        scopes: request.scopes.as_deref(),
        secret_sha256: token.hash().to_hex(),
        expires_in_s: request.expires_in_s,
    };
    let made = token::token_create(&session, &new).await?;
    created(&token, made)
}

/// `DELETE /tokens/{id}` -> whether it counted until now. Ends a session as well.
pub async fn revoke(session: Session, Path(id): Path<String>, body: Body) -> Result<Json<TokenEnded>, Error> {
    body.read_if_any(&[], |_| Some(()))?;
    let id: TokenId = id_param("token", &id)?;
    let result = match token::token_revoke(&session, id).await? {
        TokenRevoked::Revoked => "revoked",
        TokenRevoked::Unchanged => "unchanged",
        TokenRevoked::NotFound => return Err(Error::NotFound(format!("token {id}"))),
    };
    Ok(Json(TokenEnded { result: result.to_owned() }))
}
