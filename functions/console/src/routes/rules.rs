//! The rules of `db_write`.

use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use shared::db::console;
use shared::db::rule;
use shared::error::Error;
use shared::http::{Query, shown};

use super::{Visit, cursor, failure};
use crate::page::{Base, rule_list, rule_page};

/// `GET /ui/rules?after=`: the rules after the rule `after`.
pub async fn list(visit: Visit, query: Query) -> Response {
    let read = async || console::rule_list(&visit.session, cursor(&query, "after")?).await;
    match read().await {
        Ok(list) => Html(rule_list(Base::TOP, &list)).into_response(),
        Err(error) => failure(Base::TOP, &error),
    }
}

/// `GET /ui/rules/{table}`.
pub async fn page(visit: Visit, Path(table): Path<String>) -> Response {
    let session = &visit.session;
    let read = futures::future::try_join(rule::rule_fetch(session, &table), console::waiting(session)).await;
    match read {
        Ok((Some(rule), waiting)) => Html(rule_page(Base::RUN, &rule, waiting)).into_response(),
        Ok((None, _)) => failure(Base::RUN, &Error::NotFound(format!("a rule for {}", shown(&table, 150)))),
        Err(error) => failure(Base::RUN, &error),
    }
}
