//! What the artifacts of a run were made from, and the proof of the run.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use futures::future::try_join3;
use shared::db::{artifact, console, seal};
use shared::domain::RunId;
use shared::error::{Code, Error};
use shared::http::id_param;

use super::{Visit, failure};
use crate::page::{Base, LineagePage, lineage_page};

/// How long the signed URL of a proof is valid.
const SIGNED_URL_LIFETIME: std::time::Duration = std::time::Duration::from_mins(5);

/// `GET /ui/runs/{id}/lineage`.
pub async fn page(visit: Visit, Path(id): Path<String>) -> Response {
    let read = async || {
        let id: RunId = id_param("run", &id)?;
        let session = &visit.session;
        let found =
            try_join3(artifact::run_lineage(session, id), seal::seal_state(session, id), console::waiting(session));
        match found.await? {
            (Some(lineage), Some(seal), waiting) => Ok((lineage, seal, waiting)),
            _ => Err(no_run(id)),
        }
    };
    match read().await {
        Ok((lineage, seal, waiting)) => {
            let page = LineagePage { base: Base::GATE, lineage: &lineage, seal: &seal, waiting };
            Html(lineage_page(&page)).into_response()
        }
        Err(error) => failure(Base::GATE, &error),
    }
}

/// `GET /ui/runs/{id}/proof`.
pub async fn proof(visit: Visit, Path(id): Path<String>) -> Response {
    match signed(&visit, &id).await {
        Ok(url) => (StatusCode::FOUND, [(header::LOCATION, url)]).into_response(),
        Err(error) => failure(Base::GATE, &error),
    }
}

async fn signed(visit: &Visit, id: &str) -> Result<String, Error> {
    let id: RunId = id_param("run", id)?;
    let state = seal::seal_state(&visit.session, id).await?.ok_or_else(|| no_run(id))?;
    let not_yet = || Error::Conflict(Code::NotSealed, "the run is not sealed yet; its page says when it is".to_owned());
    let uri = state.uri.ok_or_else(not_yet)?;
    let name = format!("proof-{id}-{}.json", state.generation);
    Ok(visit.ctx.storage.sign_attachment(&uri, &name, SIGNED_URL_LIFETIME).await?.url)
}

fn no_run(id: RunId) -> Error {
    Error::NotFound(format!("run {id}"))
}
