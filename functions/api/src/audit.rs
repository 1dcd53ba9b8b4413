//! The tenant's audit: list, export. `docs/audit.md` explains it.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use shared::db::Session;
use shared::db::audit::{self, AuditFilter};
use shared::domain::audit::{AuditEnd, line};
use shared::error::Error;
use shared::http::{Query, next_link, page_of};

use crate::run_filter::text;

/// Parameters of the list.
pub(crate) const PARAMETERS: &[&str] = &["after", "limit", "action", "actor"];

/// JSON lines.
pub(crate) const LINES: &str = "application/jsonl";

/// `GET /audit?after=&limit=&action=&actor=` -> `{entries, next, head}`, newest first.
pub async fn list(session: Session, query: Query) -> Result<Response, Error> {
    let (after, limit) = (query.after::<u32>()?.map(u64::from), query.limit()?);
    let (action, actor) = (text(&query, "action")?, text(&query, "actor")?);
    let filter = AuditFilter { after, limit, action: action.as_deref(), actor: actor.as_deref() };
    let page = audit::audit_list(&session, &filter).await?;
    let next = page.next;
    Ok(page_of(page, next, &query))
}

/// `GET /audit/export?after=&limit=` -> JSON lines, oldest first: a row of the chain a line. The last page ends with the chain's head.
pub async fn export(session: Session, query: Query) -> Result<Response, Error> {
    let (after, limit) = (query.after::<u32>()?.unwrap_or_default(), query.limit()?);
    let page = audit::audit_export(&session, after.into(), limit).await?;
    let mut lines = String::new();
    for row in &page.rows {
        lines.push_str(&line(row).map_err(unwritten)?);
    }
    let link = page.next.and_then(|next| next_link("", &next.to_string(), limit));
    if page.next.is_none() {
        lines.push_str(&line(&AuditEnd { tenant: session.tenant().clone(), head: page.head }).map_err(unwritten)?);
    }
    let mut response = lines.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(LINES));
    response.headers_mut().extend(link);
    Ok(response)
}

fn unwritten(error: serde_json::Error) -> Error {
    Error::internal("write a line", error)
}
