//! What model calls cost.

use axum::response::{Html, IntoResponse, Response};
use futures::future;
use shared::db::{console, cost};

use super::Visit;
use super::failure;
use crate::page::{Base, costs_page};

/// `GET /ui/costs`.
pub async fn page(visit: Visit) -> Response {
    let costs = cost::tenant_costs(&visit.session, None, None);
    match future::try_join(costs, console::waiting(&visit.session)).await {
        Ok((costs, waiting)) => Html(costs_page(Base::TOP, &costs, waiting)).into_response(),
        Err(error) => failure(Base::TOP, &error),
    }
}
