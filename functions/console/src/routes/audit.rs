//! The audit of the tenant.

use axum::response::{Html, IntoResponse, Response};
use futures::future;
use shared::db::audit::{AuditFilter, audit_list};
use shared::db::console;
use shared::error::{Error, Problem};
use shared::http::Query;
use shared::view::AuditPage;

use super::{Visit, failure};
use crate::page::{AuditList, Base, audit_page};

/// How many entries a page has.
const ENTRIES: i64 = 50;
/// Maximum length of a filter.
const MAX_FILTER_CHARS: usize = 200;

/// `GET /ui/audit?after=&action=&actor=`: the newest entries, or those before number `after`.
pub async fn page(visit: Visit, query: Query) -> Response {
    match read(&visit, &query).await {
        Ok((page, waiting)) => {
            let (action, actor) = (query.get("action"), query.get("actor"));
            Html(audit_page(&AuditList { base: Base::TOP, waiting, page: &page, action, actor })).into_response()
        }
        Err(error) => failure(Base::TOP, &error),
    }
}

async fn read(visit: &Visit, query: &Query) -> Result<(AuditPage, u64), Error> {
    let after = query.after::<u32>()?.map(u64::from);
    let filter = AuditFilter { after, limit: ENTRIES, action: text(query, "action")?, actor: text(query, "actor")? };
    future::try_join(audit_list(&visit.session, &filter), console::waiting(&visit.session)).await
}

fn text<'a>(query: &'a Query, name: &str) -> Result<Option<&'a str>, Problem> {
    let text = query.get(name);
    if text.is_some_and(|text| text.is_empty() || text.chars().count() > MAX_FILTER_CHARS) {
        return Err(Problem::new(name, format!("must have from 1 to {MAX_FILTER_CHARS} characters")));
    }
    Ok(text)
}
