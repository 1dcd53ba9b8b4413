//! Who sends a request. Every route names the permission that it needs, and gets a [`Session`] of its caller.
//!
//! The credential is checked here, without the database (`auth`). The statement of the route confirms it: whether the token is
//! revoked, whether the person is a member, and which role counts. A route that ended before it sent a statement, because
//! its input is wrong, is settled here: its answer is given only to a caller that the database admits, or during an outage, when
//! nothing was read for it. So a caller without rights learns nothing but that.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::info;

use super::shelf::shelf;
use super::{RequestId, session_cookie, source_ip};
use crate::auth::{Authenticator, RequestOrigin};
use crate::context::Ctx;
use crate::db::{Database, Session};
use crate::domain::principal::Permission;
use crate::error::Error;

/// The address of the console.
const PAGES: &str = "/ui";

/// What identifies callers, for all routes of a function.
pub(super) struct Access {
    db: Database,
    authenticator: Authenticator,
}

impl Access {
    pub fn of(ctx: &Ctx) -> Result<Self, Error> {
        let authenticator = Authenticator::new(&ctx.config.auth, ctx.config.tenant.clone(), shelf(ctx))?;
        Ok(Self { db: ctx.db.clone(), authenticator })
    }
}

/// Gives every request what identifies its caller.
pub(super) async fn provide(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(access);
    next.run(request).await
}

/// Identifies the caller of a route that needs `permission`, and settles the answer.
pub(super) async fn identify(State(permission): State<Permission>, mut request: Request, next: Next) -> Response {
    if permission == Permission::Public {
        return next.run(request).await;
    }
    let Some(access) = request.extensions().get::<Arc<Access>>().cloned() else {
        return Error::internal("identify a caller", "the router has no access").into_response();
    };
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    // Pages alone have a cookie: a program has a header, and a browser sends none for another site.
    let is_page = request.uri().path() == PAGES || request.uri().path().starts_with("/ui/");
    // In the local mode a cookie of an earlier stack must not shut its person out.
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
        // Without the database the answer says nothing that the request did not say.
        Ok(_) | Err(Error::Unavailable { .. }) => response,
        Err(error) => {
            info!(status_before = response.status().as_u16(), "not admitted");
            error.into_response()
        }
    }
}

/// Identifies somebody who logs in with a request that has no credential yet.
pub struct Door {
    access: Arc<Access>,
    ip: Option<IpAddr>,
    request_id: String,
}

impl Door {
    /// Where the request comes from.
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The session of the person who has this JSON web token, to do what needs `permission`.
    pub async fn person(&self, jwt: &str, permission: Permission) -> Result<Session, Error> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::try_from(format!("Bearer {jwt}")).map_err(|_| Error::Unauthenticated)?;
        headers.insert(header::AUTHORIZATION, value);
        let origin = RequestOrigin { ip: self.ip, request_id: &self.request_id, session_cookie: None };
        let caller = self.access.authenticator.identify(&headers, &origin).await.map_err(|denied| {
            info!(reason = denied.reason(), "the issuer's token does not count");
            Error::from(denied)
        })?;
        Ok(Session::new(self.access.db.clone(), Arc::new(caller), permission))
    }
}

impl<S: Sync> FromRequestParts<S> for Door {
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
