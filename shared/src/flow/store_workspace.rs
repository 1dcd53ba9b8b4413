//! Workspaces that a page uploads: stores the bytes, then records the artifact.

use serde_json::json;
use uuid::Uuid;

use crate::context::Ctx;
use crate::db::{Session, artifact};
use crate::domain::{ArtifactId, NewArtifact, TenantId, digest};
use crate::error::Error;

/// The media type of a tar.gz.
const GZIP: &str = "application/gzip";

/// Stores a tar.gz as an artifact that a plan may name as its workspace or base. Refuses other files.
pub async fn store_workspace(ctx: &Ctx, session: &Session, name: &str, archive: Vec<u8>) -> Result<ArtifactId, Error> {
    // RFC 1952, section 2.3.1. Gates judge the rest.
    if !archive.starts_with(&[0x1f, 0x8b]) {
        return Err(Error::invalid(name, "is not a tar.gz"));
    }
    let (hash, size_bytes) = (digest::sha256_hex(&archive), archive.len() as u64);
    let (key, row) = new_workspace(ctx, session.tenant(), name.to_owned(), GZIP, hash, size_bytes);
    // The bytes are stored before the row, so the caller is admitted first.
    session.principal().await?;
    ctx.storage.store_workspace(&key, &row.media_type, archive).await?;
    artifact::artifact_upload(session, &row).await?;
    Ok(row.id)
}

/// The key and the row of a new upload.
pub fn new_workspace(
    ctx: &Ctx,
    tenant: &TenantId,
    name: String,
    media_type: &str,
    hash: String,
    size_bytes: u64,
) -> (String, NewArtifact) {
    let id = ArtifactId(Uuid::now_v7());
    let key = format!("workspaces/{tenant}/{id}");
    let row = NewArtifact {
        id,
        name,
        kind: "workspace".into(),
        uri: ctx.storage.uri(&key),
        hash,
        size_bytes,
        media_type: media_type.to_owned(),
        metadata: json!({}),
        made_from: Vec::new(),
    };
    (key, row)
}
