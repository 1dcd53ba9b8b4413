//! Documents that gates stored. They are read by their rows, which belong to the tenant and have their digests.

use super::Visit;
use shared::db::console::{self, Document};
use shared::domain::ArtifactId;
use shared::error::Error;

/// Larger documents can only be downloaded.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;

pub async fn find(visit: &Visit, id: ArtifactId) -> Result<Document, Error> {
    let document = console::document_fetch(&visit.session, id).await?;
    document.ok_or_else(|| Error::NotFound(format!("document {id}")))
}

pub async fn bytes(visit: &Visit, document: &Document) -> Result<Vec<u8>, Error> {
    visit.ctx.storage.get(&document.artifact, MAX_BYTES).await
}
