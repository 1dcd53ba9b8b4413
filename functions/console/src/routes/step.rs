//! A step of a run.

use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use shared::db::console::{self, StepDetail};
use shared::domain::RunId;
use shared::error::Error;
use shared::http::{Query, id_param};

use super::evidence::MAX_BYTES;
use super::{Visit, failure, number};
use crate::evidence::Evidence;
use crate::page::{self, Base, StepPage};

/// `GET /ui/runs/{id}/steps/{ordinal}`. `attempt`: show what this attempt left, not the newest one.
pub async fn page(visit: Visit, Path((id, ordinal)): Path<(String, String)>, query: Query) -> Response {
    let read = async || {
        let attempt = number(&query, "attempt")?;
        let step = find(&visit, id_param("run", &id)?, id_param("step", &ordinal)?, attempt).await?;
        let evidence = evidence(&visit, &step).await;
        Ok((attempt, step, evidence))
    };
    match read().await {
        Ok((attempt, step, evidence)) => {
            let evidence = evidence.as_ref().map(|read| read.as_ref().map_err(String::as_str));
            Html(page::step_page(&StepPage { base: Base::STEP, step: &step, attempt, evidence })).into_response()
        }
        Err(error) => failure(Base::STEP, &error),
    }
}

async fn find(visit: &Visit, run: RunId, ordinal: i64, attempt: Option<i64>) -> Result<StepDetail, Error> {
    let step = console::step_detail_fetch(&visit.session, run, ordinal, attempt).await?;
    step.ok_or_else(|| {
        let attempt = attempt.map(|number| format!("attempt {number} of ")).unwrap_or_default();
        Error::NotFound(format!("{attempt}step {ordinal} of run {run}"))
    })
}

/// The evidence of the shown attempt. What cannot be read must not hide the step.
async fn evidence(visit: &Visit, step: &StepDetail) -> Option<Result<Evidence, String>> {
    let artifact = step.evidence.as_ref()?;
    let read = visit.ctx.storage.get(artifact, MAX_BYTES).await.map_err(|error| error.to_string());
    Some(read.and_then(|bytes| Evidence::read(&bytes)))
}
