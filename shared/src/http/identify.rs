//! Identifies the caller of a request. Every route names the permission that it needs, and gets a [`Session`] of its caller.
//!
//! `auth` checks the form and the signature of the credential, without the database. The first statement of the route then
//! checks that the token is not revoked, that the person is a member, and that their role has the permission. A route can end
//! without a statement, for example because its input is wrong. Then this module asks the database before it returns the
//! answer, so a caller without the permission learns only that. If the database is unavailable, the answer is returned:
//! nothing was read for it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::info;

use super::key_store::key_store;
use super::{RequestId, session_cookie, source_ip};
use crate::auth::{Authenticator, RequestOrigin};
use crate::context::Ctx;
use crate::db::{Database, Session};
use crate::domain::principal::Permission;
use crate::error::Error;

/// The path of the console.
const PAGES: &str = "/ui";

/// Identifies callers, for all routes of a function.
pub(super) struct Access {
    db: Database,
    authenticator: Authenticator,
}

impl Access {
    pub fn of(ctx: &Ctx) -> Result<Self, Error> {
        let authenticator = Authenticator::new(&ctx.config.auth, ctx.config.tenant.clone(), key_store(ctx))?;
        Ok(Self { db: ctx.db.clone(), authenticator })
    }
}

/// Adds the [`Access`] of the function to every request.
pub(super) async fn provide(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(access);
    next.run(request).await
}

/// Identifies the caller of a route that needs `permission`, and returns the route's answer only to an admitted caller.
pub(super) async fn identify(State(permission): State<Permission>, mut request: Request, next: Next) -> Response {
    if permission == Permission::Public {
        return next.run(request).await;
    }
    let Some(access) = request.extensions().get::<Arc<Access>>().cloned() else {
        return Error::internal("identify a caller", "the router has no access").into_response();
    };
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    // Only pages accept a cookie. Programs send a header, which the page of another site cannot make a browser add.
    let is_page = request.uri().path() == PAGES || request.uri().path().starts_with("/ui/");
    // In the local mode a cookie from an earlier stack is ignored. Otherwise it would be refused.
    let session_cookie =
        if is_page && !access.authenticator.is_local() { session_cookie(request.headers()) } else { None };
    let origin = RequestOrigin { ip: source_ip(request.extensions()), request_id: &request_id, session_cookie };
    let caller = match access.authenticator.identify(request.headers(), &origin).await {
        Ok(caller) => caller,
        Err(denied) => {
            info!(reason = denied.reason(), "not identified");
            return Error::from(denied).into_response();
        }
    };
    let session = Session::new(access.db.clone(), Arc::new(caller), permission);
    request.extensions_mut().insert(session.clone());
    let response = next.run(request).await;
    if session.is_admitted() {
        return response;
    }
    match session.principal().await {
        // The answer was made without the database, so it contains nothing that the caller may not know.
        Ok(_) | Err(Error::Unavailable { .. }) => response,
        Err(error) => {
            info!(status_before = response.status().as_u16(), "not admitted");
            error.into_response()
        }
    }
}

/// A request to log in. It has no credential: the function gets one from the issuer, and checks it with this.
pub struct LoginRequest {
    access: Arc<Access>,
    ip: Option<IpAddr>,
    request_id: String,
}

impl LoginRequest {
    /// The address that sent the request.
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// A session for the person of this JSON web token and for `permission`.
    pub async fn person(&self, jwt: &str, permission: Permission) -> Result<Session, Error> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::try_from(format!("Bearer {jwt}")).map_err(|_| Error::Unauthenticated)?;
        headers.insert(header::AUTHORIZATION, value);
        let origin = RequestOrigin { ip: self.ip, request_id: &self.request_id, session_cookie: None };
        let caller = self.access.authenticator.identify(&headers, &origin).await.map_err(|denied| {
            info!(reason = denied.reason(), "the issuer's token is not valid");
            Error::from(denied)
        })?;
        Ok(Session::new(self.access.db.clone(), Arc::new(caller), permission))
    }
}

impl<S: Sync> FromRequestParts<S> for LoginRequest {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let access = parts.extensions.get::<Arc<Access>>().cloned();
        let access = access.ok_or_else(|| Error::internal("identify a caller", "the router has no access"))?;
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        Ok(Self { access, ip: source_ip(&parts.extensions), request_id })
    }
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Error::internal("find the session", "the route is public"))
    }
}
