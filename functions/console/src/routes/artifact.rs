//! Downloads of artifacts.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use shared::context::Ctx;
use shared::db::artifact;
use shared::domain::ArtifactId;
use shared::error::Error;
use shared::http::{Query, id_param};

use super::failure;
use crate::page::Base;

/// How long a signed URL is valid.
const SIGNED_URL_LIFETIME: Duration = Duration::from_mins(5);

/// `GET /ui/artifacts/signed?id=`.
pub async fn signed(State(ctx): State<Ctx>, query: Query) -> Response {
    match sign(&ctx, query.get("id").unwrap_or_default()).await {
        Ok(url) => (StatusCode::FOUND, [(header::LOCATION, url)]).into_response(),
        Err(error) => failure(Base(1), &error),
    }
}

async fn sign(ctx: &Ctx, id: &str) -> Result<String, Error> {
    let id: ArtifactId = id_param("artifact", id)?;
    let row = artifact::artifact_fetch(&ctx.db, &ctx.config.tenant, id).await?;
    let row = row.ok_or_else(|| Error::NotFound(format!("artifact {id}")))?;
    let signed = ctx.storage.sign_download(&row.uri, SIGNED_URL_LIFETIME).await?;
    Ok(signed.url)
}
