//! A step of a run.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use shared::context::Ctx;
use shared::db::console::{self, StepDetail};
use shared::domain::RunId;
use shared::error::Error;
use shared::http::{Query, id_param};

use super::document::MAX_BYTES;
use super::{failure, number, show};
use crate::evidence::Evidence;
use crate::page::{self, Base, StepPage};

/// `GET /ui/runs/{id}/steps/{ordinal}`. `attempt`: show what this attempt left, not the newest one. `rows`: show the
/// rows of its write from this one on.
pub async fn page(
    State(ctx): State<Ctx>,
    Path((id, ordinal)): Path<(String, String)>,
    query: Query,
    headers: HeaderMap,
) -> Response {
    let read = async || {
        let attempt = number(&query, "attempt")?;
        let rows = number(&query, "rows")?.and_then(|first| usize::try_from(first).ok());
        let step = find(&ctx, id_param("run", &id)?, id_param("step", &ordinal)?, attempt).await?;
        let evidence = evidence(&ctx, &step).await;
        Ok((attempt, rows, step, evidence))
    };
    match read().await {
        Ok((attempt, rows, step, evidence)) => {
            let evidence = evidence.as_ref().map(|read| read.as_ref().map_err(String::as_str));
            let page = StepPage { attempt, evidence, rows, ..StepPage::new(&step, "") };
            show(&headers, |token| page::step_page(&StepPage { token, ..page }))
        }
        Err(error) => failure(Base::STEP, &error),
    }
}

async fn find(ctx: &Ctx, run: RunId, ordinal: i64, attempt: Option<i64>) -> Result<StepDetail, Error> {
    let step = console::step_detail_fetch(&ctx.db, &ctx.config.tenant, run, ordinal, attempt).await?;
    step.ok_or_else(|| {
        let attempt = attempt.map(|number| format!("attempt {number} of ")).unwrap_or_default();
        Error::NotFound(format!("{attempt}step {ordinal} of run {run}"))
    })
}

/// The evidence of the shown attempt. What cannot be read must not hide the step.
async fn evidence(ctx: &Ctx, step: &StepDetail) -> Option<Result<Evidence, String>> {
    let artifact = step.evidence.as_ref()?;
    let read = ctx.storage.get(artifact, MAX_BYTES).await.map_err(|error| error.to_string());
    Some(read.and_then(|bytes| Evidence::read(&bytes)))
}
