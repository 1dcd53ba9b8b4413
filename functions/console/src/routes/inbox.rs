//! The inbox of pending gates, and the decisions of people.

use axum::response::{Html, IntoResponse, Response};
use shared::db::console;
use shared::error::Error;
use shared::http::Query;

use super::{Visit, cursor, failure};
use crate::page::{self, Base, InboxPage};

/// `GET /ui/inbox`: the pending gates that the reader may decide after the gate `after`, oldest first, or those of one `type`.
/// `all=1`: also those that others decide. `decided=1`: the
/// decided ones, newest first.
pub async fn list(visit: Visit, query: Query) -> Response {
    match read(&visit, &query).await {
        Ok(page) => Html(page).into_response(),
        Err(error) => failure(Base::TOP, &error),
    }
}

async fn read(visit: &Visit, query: &Query) -> Result<String, Error> {
    let (session, after) = (&visit.session, cursor(query, "after")?);
    let gate_type = query.get("type").unwrap_or_default();
    match query.get("decided").unwrap_or_default() {
        "" => {
            let wanted = Some(gate_type).filter(|wanted| !wanted.is_empty());
            let everybody = query.get("all").unwrap_or_default() == "1";
            let list = console::inbox_list(session, wanted, !everybody, after).await?;
            Ok(page::inbox(&InboxPage { base: Base::TOP, list: &list, gate_type, everybody }))
        }
        "1" => Ok(page::decided_list(Base::TOP, &console::decided_list(session, after).await?)),
        _ => Err(Error::invalid("decided", "must be 1")),
    }
}
