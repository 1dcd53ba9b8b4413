//! Documents that gates stored. They are read by their rows, which belong to the tenant and have their digests.

use shared::context::Ctx;
use shared::db::console::{self, Document};
use shared::domain::ArtifactId;
use shared::error::Error;

/// Larger documents can only be downloaded.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;

pub async fn find(ctx: &Ctx, id: ArtifactId) -> Result<Document, Error> {
    let document = console::document_fetch(&ctx.db, &ctx.config.tenant, id).await?;
    document.ok_or_else(|| Error::NotFound(format!("document {id}")))
}

pub async fn bytes(ctx: &Ctx, document: &Document) -> Result<Vec<u8>, Error> {
    ctx.storage.get(&document.artifact, MAX_BYTES).await
}
