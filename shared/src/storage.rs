//! Artifacts over S3: on AWS, an emulator, or the S3 endpoint of Supabase Storage.

mod archive;
mod proofs;

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::digest::hex;
use crate::domain::{ArtifactId, ArtifactRef, ClaimedStep, NewArtifact, RunId, StepId, TenantId};
use crate::error::{Code, Error};

/// The bucket of the artifacts.
#[derive(Clone)]
pub struct Storage {
    client: aws_sdk_s3::Client,
    bucket: String,
}

/// Storage for one attempt of one step. It writes below
/// `tenants/<tenant>/runs/<run id>/steps/<step id>/`.
#[derive(Clone)]
pub struct StepStore {
    storage: Storage,
    folder: String,
    /// The folder of what later runs of the tenant may find.
    reuse: String,
}

/// Metadata of a new artifact.
#[derive(Debug, Clone, Default)]
pub struct ArtifactMeta {
    /// `text`, `gate_evidence`, ...
    pub kind: &'static str,
    pub media_type: &'static str,
    pub metadata: Value,
    /// Artifacts that it was made from.
    pub made_from: Vec<ArtifactId>,
}

/// The beginning of an object.
#[derive(Debug, Clone)]
pub struct Beginning {
    pub bytes: Vec<u8>,
    /// Whether these are all bytes. Then they have the recorded hash.
    pub is_whole: bool,
}

/// A signed request that anybody may send for a limited time.
#[derive(Debug, Clone)]
pub struct Signed {
    pub url: String,
    /// Headers that the sender must add.
    pub headers: BTreeMap<String, String>,
}

impl Storage {
    pub fn new(client: aws_sdk_s3::Client, bucket: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into() }
    }

    /// The storage of an attempt.
    pub fn for_step(&self, step: &ClaimedStep) -> StepStore {
        let folder = attempt_folder((&step.tenant_id, step.run_id, step.step_id), step.attempt);
        StepStore { storage: self.clone(), folder, reuse: format!("reuse/{}", step.tenant_id) }
    }

    /// `s3://bucket/key`.
    pub fn uri(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    async fn put(&self, key: &str, media_type: &str, digest: &[u8], bytes: Vec<u8>) -> Result<(), Error> {
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type(media_type)
            .checksum_sha256(STANDARD.encode(digest))
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map_err(|error| Error::unavailable("artifact storage", error))?;
        Ok(())
    }

    /// Stores an archive that a page uploaded.
    pub async fn store_workspace(&self, key: &str, media_type: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let digest = Sha256::digest(&bytes);
        self.put(key, media_type, &digest, bytes).await
    }

    /// Reads an artifact and verifies its hash. If it is larger than `max_bytes`, fails before reading.
    pub async fn get(&self, artifact: &ArtifactRef, max_bytes: u64) -> Result<Vec<u8>, Error> {
        if artifact.size_bytes > max_bytes {
            let message = format!("has {} bytes; at most {max_bytes} are allowed here", artifact.size_bytes);
            return Err(Error::invalid(format!("artifact {}", artifact.id), message));
        }
        let mut body = self.open(self.key(&artifact.uri)?, || unread(artifact)).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.try_next().await.map_err(|error| Error::unavailable("artifact storage", error))? {
            bytes.extend_from_slice(&chunk);
            // The object may be larger than its row says.
            if bytes.len() as u64 > artifact.size_bytes {
                break;
            }
        }
        if hex(&Sha256::digest(&bytes)) != artifact.hash {
            return Err(changed(artifact));
        }
        Ok(bytes)
    }

    /// Reads an artifact of at most `max_bytes` and verifies its hash, or else reads its first `max_bytes` bytes. The hash of
    /// a part cannot be verified, but the size of the object can.
    pub async fn read_start(&self, artifact: &ArtifactRef, max_bytes: u64) -> Result<Beginning, Error> {
        if artifact.size_bytes <= max_bytes {
            return Ok(Beginning { bytes: self.get(artifact, max_bytes).await?, is_whole: true });
        }
        let range = format!("bytes=0-{}", max_bytes.saturating_sub(1));
        let request = self.client.get_object().bucket(&self.bucket).key(self.key(&artifact.uri)?).range(range);
        let mut answer = match request.send().await {
            Ok(answer) => answer,
            // The object is empty.
            Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 416) => {
                return Err(changed(artifact));
            }
            Err(error) => return Err(unreadable(error, || unread(artifact))),
        };
        // A storage that does not know ranges sends everything.
        let total = match answer.content_range() {
            Some(range) => range.rsplit('/').next().and_then(|total| total.parse::<u64>().ok()),
            None => answer.content_length().and_then(|length| u64::try_from(length).ok()),
        };
        if total.is_some_and(|total| total != artifact.size_bytes) {
            return Err(changed(artifact));
        }
        let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        while bytes.len() < max_bytes {
            match answer.body.try_next().await.map_err(|error| Error::unavailable("artifact storage", error))? {
                Some(chunk) => bytes.extend_from_slice(&chunk),
                None => break,
            }
        }
        bytes.truncate(max_bytes);
        Ok(Beginning { bytes, is_whole: false })
    }

    async fn read(&self, key: &str, name: &str, max_bytes: u64) -> Result<Vec<u8>, Error> {
        let mut body = self.open(key, || Unread { name: format!("the object {name}"), artifact: None }).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.try_next().await.map_err(|error| Error::unavailable("artifact storage", error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > max_bytes {
                return Err(Error::invalid(name, format!("has more than {max_bytes} bytes")));
            }
        }
        Ok(bytes)
    }

    async fn open(&self, key: &str, unread: impl Fn() -> Unread) -> Result<ByteStream, Error> {
        match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(answer) => Ok(answer.body),
            Err(error) => Err(unreadable(error, unread)),
        }
    }

    /// A URL from which the object can be read for a limited time.
    pub async fn sign_download(&self, uri: &str, lasts: Duration) -> Result<Signed, Error> {
        let request = self.client.get_object().bucket(&self.bucket).key(self.key(uri)?);
        let signed = request.presigned(presigning(lasts)?).await;
        Ok(signed_request(&signed.map_err(|error| Error::internal("sign a download", error))?))
    }

    /// A URL from which a browser saves the object under the last part of `name`, for a limited time. It never opens it: an
    /// object of type HTML would run its scripts at the origin of the storage.
    pub async fn sign_attachment(&self, uri: &str, name: &str, lasts: Duration) -> Result<Signed, Error> {
        let request = self.client.get_object().bucket(&self.bucket).key(self.key(uri)?);
        let signed = request.response_content_disposition(attachment(name)).presigned(presigning(lasts)?).await;
        Ok(signed_request(&signed.map_err(|error| Error::internal("sign a download", error))?))
    }

    /// A URL from which a browser can show the object as this media type, for a limited time.
    pub async fn sign_view(&self, uri: &str, media_type: &str, lasts: Duration) -> Result<Signed, Error> {
        let request = self.client.get_object().bucket(&self.bucket).key(self.key(uri)?);
        let signed = request.response_content_type(media_type).presigned(presigning(lasts)?).await;
        Ok(signed_request(&signed.map_err(|error| Error::internal("sign a download", error))?))
    }

    /// A request that uploads the bytes with this sha256 (hex). S3 refuses other bytes.
    pub async fn sign_upload(
        &self,
        key: &str,
        media_type: &str,
        sha256: &[u8],
        size_bytes: u64,
        lasts: Duration,
    ) -> Result<Signed, Error> {
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type(media_type)
            .content_length(i64::try_from(size_bytes).unwrap_or(i64::MAX))
            .checksum_sha256(STANDARD.encode(sha256));
        let signed = request.presigned(presigning(lasts)?).await;
        Ok(signed_request(&signed.map_err(|error| Error::internal("sign an upload", error))?))
    }

    /// The key of an object in the artifact bucket. Any other URI is refused.
    fn key<'a>(&self, uri: &'a str) -> Result<&'a str, Error> {
        uri.strip_prefix("s3://")
            .and_then(|rest| rest.strip_prefix(&self.bucket))
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(|| Error::Forbidden(format!("{uri} is not in the artifact bucket")))
    }
}

impl StepStore {
    /// A request that reads the object of an artifact.
    pub async fn sign_read(&self, uri: &str, lasts: Duration) -> Result<Signed, Error> {
        self.storage.sign_download(uri, lasts).await
    }

    /// A request that writes a scratch object: one that another program makes for this attempt, and that is no
    /// artifact. The bucket deletes it after some days.
    pub async fn sign_scratch(&self, name: &str, lasts: Duration) -> Result<Signed, Error> {
        let request = self.storage.client.put_object().bucket(&self.storage.bucket).key(self.scratch_key(name));
        let signed = request.presigned(presigning(lasts)?).await;
        Ok(signed_request(&signed.map_err(|error| Error::internal("sign a scratch object", error))?))
    }

    /// Reads a scratch object, of at most `max_bytes`. Its content is untrusted.
    pub async fn read_scratch(&self, name: &str, max_bytes: u64) -> Result<Vec<u8>, Error> {
        self.storage.read(&self.scratch_key(name), name, max_bytes).await
    }

    /// Writes a note under `reuse/<tenant>/<key>.json`, for later runs of the tenant. Only `gate` may. It replaces an
    /// earlier note with the same key, and the bucket deletes it after some months.
    pub async fn remember(&self, key: &str, note: Vec<u8>) -> Result<(), Error> {
        let digest = Sha256::digest(&note);
        self.storage.put(&format!("{}/{key}.json", self.reuse), "application/json", &digest, note).await
    }

    /// The note with this key, of at most `max_bytes`. `None` if there is none.
    pub async fn recall(&self, key: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, Error> {
        match self.storage.read(&format!("{}/{key}.json", self.reuse), key, max_bytes).await {
            Ok(note) => Ok(Some(note)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a scratch object. Returns its URI.
    pub async fn put_scratch(&self, name: &str, media_type: &str, bytes: Vec<u8>) -> Result<String, Error> {
        let (key, digest) = (self.scratch_key(name), Sha256::digest(&bytes));
        self.storage.put(&key, media_type, &digest, bytes).await?;
        Ok(self.storage.uri(&key))
    }

    fn scratch_key(&self, name: &str) -> String {
        format!("scratch/{}/{name}", self.folder)
    }

    /// Stores the bytes under `name`, with a sha256 that S3 verifies. Returns the row for the outcome.
    pub async fn put(&self, name: &str, meta: ArtifactMeta, bytes: Vec<u8>) -> Result<NewArtifact, Error> {
        let digest = Sha256::digest(&bytes);
        let key = format!("{}/{name}", self.folder);
        let size_bytes = bytes.len() as u64;
        self.storage.put(&key, meta.media_type, &digest, bytes).await?;
        Ok(NewArtifact {
            id: ArtifactId(Uuid::now_v7()),
            name: name.to_owned(),
            kind: meta.kind.to_owned(),
            uri: self.storage.uri(&key),
            hash: hex(&digest),
            size_bytes,
            media_type: meta.media_type.to_owned(),
            metadata: if meta.metadata.is_null() { serde_json::json!({}) } else { meta.metadata },
            made_from: meta.made_from,
        })
    }

    /// Reads an artifact and verifies its hash. If it is larger than `max_bytes`, fails before reading.
    pub async fn get(&self, artifact: &ArtifactRef, max_bytes: u64) -> Result<Vec<u8>, Error> {
        self.storage.get(artifact, max_bytes).await
    }
}

/// Where an attempt stores. The folder of the first one has those of the others in it.
fn attempt_folder((tenant, run, step): (&TenantId, RunId, StepId), attempt: u32) -> String {
    let folder = format!("tenants/{tenant}/runs/{run}/steps/{step}");
    if attempt > 1 { format!("{folder}/attempt-{attempt}") } else { folder }
}

fn changed(artifact: &ArtifactRef) -> Error {
    let message = format!("the object of artifact {} has changed since it was recorded", artifact.id);
    Error::Conflict(Code::ArtifactChanged, message)
}

/// What was read, for messages.
struct Unread {
    name: String,
    artifact: Option<ArtifactId>,
}

fn unread(artifact: &ArtifactRef) -> Unread {
    Unread { name: format!("the object of artifact {}", artifact.id), artifact: Some(artifact.id) }
}

/// The code of a step that cannot read an artifact: `artifact_archived`, or `code` for any other reason.
pub fn step_code(error: &Error, code: &'static str) -> &'static str {
    match error {
        Error::Conflict(archived @ Code::ArtifactArchived, _) => archived.as_str(),
        _ => code,
    }
}

/// Why the bytes of an archived artifact cannot be read, and what to do.
pub fn archived(artifact: ArtifactId) -> Error {
    let message =
        format!("the artifact {artifact} is archived; restore it first: nofx artifact restore {artifact} --days 7");
    Error::Conflict(Code::ArtifactArchived, message)
}

fn unreadable(error: SdkError<GetObjectError>, unread: impl FnOnce() -> Unread) -> Error {
    match error.as_service_error() {
        Some(GetObjectError::NoSuchKey(_)) => Error::NotFound(unread().name),
        Some(GetObjectError::InvalidObjectState(_)) => {
            let Unread { name, artifact } = unread();
            let is_archived = || Error::Conflict(Code::ArtifactArchived, format!("{name} is archived"));
            artifact.map_or_else(is_archived, archived)
        }
        _ => Error::unavailable("artifact storage", error),
    }
}

/// The header of a download (RFC 6266), with characters that every file system takes.
fn attachment(name: &str) -> String {
    const CHARACTERS: usize = 100;
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = name.chars().take(CHARACTERS).map(plain).collect();
    format!("attachment; filename=\"{}\"", if name.is_empty() { "artifact" } else { &name })
}

fn presigning(lasts: Duration) -> Result<PresigningConfig, Error> {
    PresigningConfig::expires_in(lasts).map_err(|error| Error::internal("sign a request", error))
}

fn signed_request(request: &aws_sdk_s3::presigning::PresignedRequest) -> Signed {
    Signed {
        url: request.uri().to_owned(),
        headers: request.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_has_a_name_that_cannot_leave_its_folder_or_header() {
        for (name, file) in [
            ("notes.md", "notes.md"),
            ("a/b/../c\\d e.txt", "d_e.txt"),
            ("x\"; filename=y\r\nset-cookie: a\u{202e}", "x___filename_y__set-cookie__a_"),
            ("", "artifact"),
            ("a/", "artifact"),
        ] {
            assert_eq!(attachment(name), format!("attachment; filename=\"{file}\""));
        }
        assert!(attachment(&"é".repeat(9_000)).len() < 200);
    }
}
