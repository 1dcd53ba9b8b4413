//! Proofs of runs that have ended.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use shared::context::Ctx;
use shared::db::{Session, seal};
use shared::domain::RunId;
use shared::error::{Code, Error};
use shared::http::id_param;

/// How long the signed URL is valid. It needs no credentials.
const DOWNLOAD_FOR: Duration = Duration::from_mins(5);
/// How long to wait for a seal, in seconds: the sweeper seals every minute, on a laptop every 10 s.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("5");

/// `GET /runs/{id}/proof` -> 302 to a signed URL of the proof of the run's last generation.
pub async fn download(State(ctx): State<Ctx>, session: Session, Path(id): Path<String>) -> Result<Response, Error> {
    let id: RunId = id_param("run", &id)?;
    let state = seal::seal_state(&session, id).await?.ok_or_else(|| Error::NotFound(format!("run {id}")))?;
    let Some(uri) = state.uri else {
        if !state.has_ended {
            let message = "the run has not ended; a run is sealed once it has";
            return Err(Error::Conflict(Code::RunNotFinished, message.to_owned()));
        }
        let message = "the run has ended and is not sealed yet; ask again in some seconds";
        let mut response = Error::Conflict(Code::NotSealed, message.to_owned()).into_response();
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S);
        return Ok(response);
    };
    let signed = ctx.storage.sign_download(&uri, DOWNLOAD_FOR).await?;
    let headers = [(header::LOCATION, signed.url), (header::CACHE_CONTROL, "no-store".into())];
    Ok((StatusCode::FOUND, headers).into_response())
}
