//! Downloads artifacts. Bytes that do not have the artifact's sha256 are an error.

use std::io::Write;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use shared::domain::{ArtifactId, digest};
use shared::view::Artifact;

use crate::client::api::Api;

/// Writes the bytes of an artifact. What is written before an error is not to be used.
pub async fn artifact(api: &Api, artifact: &Artifact, to: &mut impl Write, progress: impl Fn(u64)) -> Result<()> {
    let mut response = api.download(artifact.id).await?;
    let mut hasher = Sha256::new();
    let mut received: u64 = 0;
    while let Some(chunk) = response.chunk().await.context("the download broke off; try again")? {
        received += chunk.len() as u64;
        if received > artifact.size_bytes {
            bail!("the artifact {} has more than its {} bytes", artifact.id, artifact.size_bytes);
        }
        hasher.update(&chunk);
        to.write_all(&chunk)?;
        progress(received);
    }
    to.flush()?;
    let sha256 = digest::hex(&hasher.finalize());
    if sha256 != artifact.hash {
        bail!(
            "the artifact {} was changed: its sha256 is {sha256}, and the control plane recorded {}",
            artifact.id,
            artifact.hash
        );
    }
    Ok(())
}

/// The bytes of an artifact of at most `max_bytes`.
pub async fn bytes(api: &Api, id: ArtifactId, max_bytes: u64) -> Result<(Artifact, Vec<u8>)> {
    let row: Artifact = api.get(&format!("/artifacts/{id}")).await?;
    if row.size_bytes > max_bytes {
        bail!(
            "the artifact {id} has {} bytes, more than {max_bytes}; nofx get {id} -o FILE downloads it",
            row.size_bytes
        );
    }
    let mut content = Vec::new();
    artifact(api, &row, &mut content, |_| {}).await?;
    Ok((row, content))
}
