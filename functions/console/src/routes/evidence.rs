//! What gates stored. A document is read by its row, which belongs to the tenant and has its digest.

use axum::extract::{Path, State};
use axum::response::Response;
use shared::context::Ctx;
use shared::db::console::{self, Document};
use shared::domain::ArtifactId;
use shared::error::Error;
use shared::http::id_param;

use super::{failure, redirect};
use crate::page::{Base, EVIDENCE};

/// Larger documents can only be downloaded.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// `GET /ui/evidence/{id}`: redirects to the attempt that left the evidence (303), so that old links stay good.
pub async fn page(State(ctx): State<Ctx>, Path(id): Path<String>) -> Response {
    let read = async || {
        let id: ArtifactId = id_param("evidence", &id)?;
        let document = find(&ctx, id).await?;
        let Document { run_id, ordinal: Some(ordinal), attempt: Some(attempt), .. } = &document else {
            return Err(Error::NotFound(format!("evidence {id}")));
        };
        if document.kind != EVIDENCE {
            return Err(Error::NotFound(format!("evidence {id}")));
        }
        Ok(format!("runs/{run_id}/steps/{ordinal}?attempt={attempt}"))
    };
    match read().await {
        Ok(path) => redirect(&Base::RUN.to(&path)),
        Err(error) => failure(Base::RUN, &error),
    }
}

pub async fn find(ctx: &Ctx, id: ArtifactId) -> Result<Document, Error> {
    let document = console::document_fetch(&ctx.db, &ctx.config.tenant, id).await?;
    document.ok_or_else(|| Error::NotFound(format!("document {id}")))
}

pub async fn bytes(ctx: &Ctx, document: &Document) -> Result<Vec<u8>, Error> {
    ctx.storage.get(&document.artifact, MAX_BYTES).await
}
