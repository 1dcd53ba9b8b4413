//! Proofs of runs. Only the sweeper stores them.

use aws_sdk_s3::types::Object;
use sha2::{Digest, Sha256};

use super::Storage;
use crate::domain::{RunId, TenantId, proof};
use crate::error::Error;

/// A generation of a run: what one proof is about.
pub type Generation<'a> = (&'a TenantId, RunId, u64);

/// The beginning of the keys of the proofs of a generation.
fn prefix((tenant, run, generation): Generation<'_>) -> String {
    format!("tenants/{tenant}/runs/{run}/proof/{generation}-")
}

impl Storage {
    /// Stores the proof of a run. Each proof has a key of its own, which its digest (hex) is part of. Returns its URI.
    pub async fn store_proof(&self, of: Generation<'_>, sha256: &str, bytes: Vec<u8>) -> Result<String, Error> {
        let key = format!("{}{sha256}.json", prefix(of));
        let digest = Sha256::digest(&bytes);
        self.put(&key, proof::MEDIA_TYPE, &digest, bytes).await?;
        Ok(self.uri(&key))
    }

    /// The proof of a generation that was stored first: its URI and its bytes. None if there is none.
    pub async fn first_proof(&self, of: Generation<'_>) -> Result<Option<(String, Vec<u8>)>, Error> {
        let listed = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix(of)).send().await;
        let listed = listed.map_err(|error| Error::unavailable("artifact storage", error))?;
        let objects = listed.contents().iter().filter(|object| object.key().is_some());
        let age = |object: &&Object| object.last_modified().map(|at| (at.secs(), at.subsec_nanos()));
        let Some(first) = objects.min_by_key(|object| (age(object), object.key())) else { return Ok(None) };
        let key = first.key().unwrap_or_default();
        if first.size().is_none_or(|size| usize::try_from(size).is_ok_and(|size| size > proof::MAX_BYTES)) {
            return Err(Error::internal("read a proof", format!("{key} is too large")));
        }
        let answer = self.client.get_object().bucket(&self.bucket).key(key).send().await;
        let answer = answer.map_err(|error| Error::unavailable("artifact storage", error))?;
        let bytes = answer.body.collect().await.map_err(|error| Error::unavailable("artifact storage", error))?;
        Ok(Some((self.uri(key), bytes.to_vec())))
    }
}
