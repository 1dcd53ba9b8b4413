//! Limits of a tenant.

use serde::Serialize;

use super::session::Session;
use crate::error::Error;
use crate::view::Limits;

/// A call whose input is its caller.
#[derive(Debug, Serialize)]
struct Nothing {}

/// The limits of the caller's tenant, and what it has used.
pub async fn limits_of(session: &Session) -> Result<Limits, Error> {
    session.transition("select nofx.limits_of($1)", &Nothing {}).await
}
