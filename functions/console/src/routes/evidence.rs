//! What gates stored. A document is read by its row, which belongs to the tenant and has its digest.

use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use shared::context::Ctx;
use shared::db::console::{self, Document};
use shared::domain::ArtifactId;
use shared::error::Error;
use shared::http::id_param;

use super::failure;
use crate::evidence::Evidence;
use crate::page::{self, Base, EVIDENCE, EvidencePage};

/// Larger documents can only be downloaded.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// `GET /ui/evidence/{id}`.
pub async fn page(State(ctx): State<Ctx>, Path(id): Path<String>) -> Response {
    let read = async || {
        let id: ArtifactId = id_param("evidence", &id)?;
        let document = find(&ctx, id).await?;
        if document.kind != EVIDENCE {
            return Err(Error::NotFound(format!("evidence {id}")));
        }
        let evidence = Evidence::read(&bytes(&ctx, &document).await?).map_err(unreadable)?;
        Ok((document, evidence))
    };
    match read().await {
        Ok((document, evidence)) => {
            let page = EvidencePage { base: Base::RUN, document: &document, evidence: &evidence };
            Html(page::evidence_page(&page)).into_response()
        }
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

pub fn unreadable(why: String) -> Error {
    Error::invalid("document", why)
}
