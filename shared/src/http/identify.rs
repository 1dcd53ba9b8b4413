//! Who sends a request. Every route names the permission that it needs, and gets a [`Session`] of its caller.
//!
//! The credential is checked here, without the database (`auth`). The statement of the route confirms it: whether the token is
//! revoked, whether the person is a member, and which role counts. A route that ended before it sent a statement, because
//! its input is wrong, is settled here: its answer is given only to a caller that the database admits, or during an outage, when
//! nothing was read for it. So a caller without rights learns nothing but that.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::info;

use super::{RequestId, source_ip};
use crate::auth::{Authenticator, RequestOrigin};
use crate::context::Ctx;
use crate::db::{Database, Session};
use crate::domain::principal::Permission;
use crate::error::Error;

/// What identifies callers, for all routes of a function.
pub(super) struct Access {
    db: Database,
    authenticator: Authenticator,
}

impl Access {
    pub fn of(ctx: &Ctx) -> Result<Self, Error> {
        let authenticator = Authenticator::new(&ctx.config.auth, ctx.config.tenant.clone(), None)?;
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
    let origin = RequestOrigin { ip: source_ip(&request), request_id: &request_id, session_cookie: None };
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
