//! Artifacts over S3. An object must match its hash: S3 checks it on upload, and we check it on download.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use nofx_tests::Lab;
use nofx_tests::lab::{create_bucket, s3};
use serde_json::json;
use sha2::{Digest, Sha256};
use shared::domain::artifact_storage::Seen;
use shared::domain::{ArtifactId, ArtifactRef, NewArtifact, RunId, StepId, TenantId};
use shared::error::Error;
use shared::storage::{ArtifactMeta, StepStore};
use shared::worker::ClaimedStep;
use uuid::Uuid;

use crate::target::{Target, for_each_target};

const MIB: u64 = 1 << 20;
const MINUTE: Duration = Duration::from_mins(1);

pub fn store(lab: &Lab, attempt: u32) -> StepStore {
    lab.ctx.storage.for_step(&step(lab, attempt))
}

pub fn step(lab: &Lab, attempt: u32) -> ClaimedStep {
    ClaimedStep {
        tenant_id: lab.tenant.clone(),
        run_id: RunId(Uuid::from_u128(7)),
        step_id: StepId(Uuid::from_u128(8)),
        name: "s".into(),
        tool: "codegen".into(),
        attempt,
        inputs: json!({}),
        goal: "g".into(),
        workspace: None,
        base_origin: None,
        artifacts: std::collections::BTreeMap::new(),
        timeout: MINUTE,
        timeout_s: None,
        policy: shared::domain::Policy::default(),
        decisions: Vec::new(),
        models: shared::domain::ModelTerms::default(),
        repair: None,
    }
}

pub fn describe() -> ArtifactMeta {
    ArtifactMeta { kind: "text", media_type: "text/plain", metadata: json!({ "lines": 1 }), made_from: Vec::new() }
}

pub fn found(artifact: &NewArtifact) -> ArtifactRef {
    ArtifactRef {
        id: artifact.id,
        uri: artifact.uri.clone(),
        hash: artifact.hash.clone(),
        size_bytes: artifact.size_bytes,
        media_type: artifact.media_type.clone(),
    }
}

fn key_of<'a>(lab: &Lab, uri: &'a str) -> &'a str {
    uri.strip_prefix(&format!("s3://{}/", lab.ctx.config.artifacts.bucket)).expect("a key of our bucket")
}

for_each_target!(Ministack as ministack, Localstack as localstack, OwnKeys as own_keys => [
    a_stored_object_is_read_back_and_has_its_hash,
    a_note_is_found_by_later_runs_of_its_tenant_only,
    an_object_that_was_changed_in_the_store_is_rejected,
    an_object_that_is_too_large_missing_or_in_another_bucket_has_its_own_error,
    a_missing_bucket_means_that_storage_is_unavailable,
    a_signed_upload_stores_the_signed_bytes_and_a_signed_download_returns_them,
    a_signed_upload_of_other_bytes_is_never_readable,
    the_signature_of_an_upload_covers_its_hash,
    a_deleted_object_is_gone_and_its_neighbours_stay,
]);

async fn a_stored_object_is_read_back_and_has_its_hash(target: Target) {
    let lab = target.lab_with_bucket().await;
    let artifact = store(&lab, 1).put("a.txt", describe(), b"hello".to_vec()).await.unwrap();
    assert_eq!(artifact.hash, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!((artifact.size_bytes, artifact.kind.as_str()), (5, "text"));
    let folder = format!("tenants/{}/runs/{}/steps/{}", lab.tenant, Uuid::from_u128(7), Uuid::from_u128(8));
    assert_eq!(key_of(&lab, &artifact.uri), format!("{folder}/a.txt"));
    assert_eq!(store(&lab, 1).get(&found(&artifact), MIB).await.unwrap(), b"hello");

    let object =
        s3(&target.sdk().await).head_object().bucket(&lab.ctx.config.artifacts.bucket).key(key_of(&lab, &artifact.uri));
    let object = object.checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!(object.content_type(), Some("text/plain"));
    // A server without checksums must ignore the header. The reader verifies the hash in the row.
    let stored = (target != Target::OwnKeys).then_some("LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=");
    assert_eq!(object.checksum_sha256(), stored);

    let retried = store(&lab, 2).put("a.txt", describe(), b"other".to_vec()).await.unwrap();
    assert_eq!(key_of(&lab, &retried.uri), format!("{folder}/attempt-2/a.txt"));
    assert_eq!(store(&lab, 1).get(&found(&artifact), MIB).await.unwrap(), b"hello", "the first attempt's is untouched");
}

async fn a_note_is_found_by_later_runs_of_its_tenant_only(target: Target) {
    let lab = target.lab_with_bucket().await;
    let (key, own) = ("1".repeat(64), store(&lab, 1));
    assert_eq!(own.recall(&key, MIB).await.unwrap(), None);
    own.remember(&key, b"first".to_vec()).await.unwrap();
    own.remember(&key, b"second".to_vec()).await.unwrap();
    let later = ClaimedStep { run_id: RunId(Uuid::from_u128(9)), ..step(&lab, 3) };
    let found = lab.ctx.storage.for_step(&later).recall(&key, MIB).await.unwrap();
    assert_eq!(found.as_deref(), Some(b"second".as_slice()));
    assert!(matches!(own.recall(&key, 5).await, Err(Error::Invalid(_))), "too large");
    let other = ClaimedStep { tenant_id: TenantId("other".into()), ..step(&lab, 1) };
    assert_eq!(lab.ctx.storage.for_step(&other).recall(&key, MIB).await.unwrap(), None);
}

async fn an_object_that_was_changed_in_the_store_is_rejected(target: Target) {
    let lab = target.lab_with_bucket().await;
    let artifact = store(&lab, 1).put("a.txt", describe(), b"hello".to_vec()).await.unwrap();
    for forged in [&b"jello"[..], b"hell", b"hello, and much more than was recorded"] {
        let body = ByteStream::from(forged.to_vec());
        let put = s3(&target.sdk().await)
            .put_object()
            .bucket(&lab.ctx.config.artifacts.bucket)
            .key(key_of(&lab, &artifact.uri));
        put.body(body).send().await.unwrap();
        let answer = lab.ctx.storage.get(&found(&artifact), MIB).await;
        assert!(matches!(answer, Err(Error::Conflict(..))), "{answer:?}");
    }
}

async fn an_object_that_is_too_large_missing_or_in_another_bucket_has_its_own_error(target: Target) {
    let lab = target.lab_with_bucket().await;
    let bucket = &lab.ctx.config.artifacts.bucket;
    let artifact = found(&store(&lab, 1).put("a.txt", describe(), b"hello".to_vec()).await.unwrap());
    assert!(matches!(lab.ctx.storage.get(&artifact, 4).await, Err(Error::Invalid(_))));

    let gone = ArtifactRef { uri: format!("s3://{bucket}/runs/none"), ..artifact.clone() };
    assert!(matches!(lab.ctx.storage.get(&gone, MIB).await, Err(Error::NotFound(_))));

    // A bucket whose name starts with ours exists and holds this object.
    let neighbour = format!("{bucket}-x");
    create_bucket(&target.sdk().await, &neighbour).await;
    s3(&target.sdk().await)
        .put_object()
        .bucket(&neighbour)
        .key("k")
        .body(ByteStream::from_static(b"hello"))
        .send()
        .await
        .unwrap();
    for uri in [format!("s3://{neighbour}/k"), "file:///etc/passwd".into(), format!("s3://{bucket}")] {
        let elsewhere = ArtifactRef { uri: uri.clone(), ..artifact.clone() };
        let answer = lab.ctx.storage.get(&elsewhere, MIB).await;
        assert!(matches!(answer, Err(Error::Forbidden(_))), "{uri}: {answer:?}");
        let signed = lab.ctx.storage.sign_download(&uri, MINUTE).await;
        assert!(matches!(signed, Err(Error::Forbidden(_))), "{uri}");
    }
}

async fn a_deleted_object_is_gone_and_its_neighbours_stay(target: Target) {
    let lab = target.lab_with_bucket().await;
    let put = async |name: &str| store(&lab, 1).put(name, describe(), b"hello".to_vec()).await.unwrap().uri;
    let (object, neighbour) = (put("a.txt").await, put("a.txt.more").await);
    let storage = &lab.ctx.storage;
    assert_eq!(storage.look(&object).await.unwrap(), Seen::Warm);
    for _ in 0..2 {
        storage.delete(&object).await.expect("deleted, and deleted again");
        assert_eq!(storage.look(&object).await.unwrap(), Seen::Missing);
    }
    assert_eq!(storage.look(&neighbour).await.unwrap(), Seen::Warm);
    let elsewhere = storage.delete("s3://another-bucket/a").await;
    assert!(matches!(elsewhere, Err(Error::Forbidden(_))), "{elsewhere:?}");
}

async fn a_missing_bucket_means_that_storage_is_unavailable(target: Target) {
    let lab = target.lab().await;
    // No bucket was created.
    let put = store(&lab, 1).put("a", describe(), b"x".to_vec()).await;
    assert!(matches!(put, Err(Error::Unavailable { .. })), "{put:?}");
}

async fn a_signed_upload_stores_the_signed_bytes_and_a_signed_download_returns_them(target: Target) {
    let lab = target.lab_with_bucket().await;
    let bytes = b"the very bytes".to_vec();
    let artifact = upload(&lab, &bytes, bytes.clone()).await.expect("the right bytes are accepted");
    assert_eq!(lab.ctx.storage.get(&artifact, MIB).await.unwrap(), bytes);

    let signed = lab.ctx.storage.sign_download(&artifact.uri, MINUTE).await.unwrap();
    let answer = reqwest::get(&signed.url).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.bytes().await.unwrap(), bytes);
}

async fn a_signed_upload_of_other_bytes_is_never_readable(target: Target) {
    let lab = target.lab_with_bucket().await;
    // Different bytes of the same length.
    match upload(&lab, b"the very bytes", b"the evil bytes".to_vec()).await {
        // S3 rejects them, because the checksum is signed.
        Err(status) => assert_eq!(status, 400),
        // If an emulator does not check, the reader does.
        Ok(artifact) => {
            let read = lab.ctx.storage.get(&artifact, MIB).await;
            assert!(matches!(read, Err(Error::Conflict(..))), "{read:?}");
        }
    }
}

/// Sends `body` with a request that was signed for `signed_for`. Returns the artifact, or the status of the error.
async fn upload(lab: &Lab, signed_for: &[u8], body: Vec<u8>) -> Result<ArtifactRef, u16> {
    let digest = Sha256::digest(signed_for);
    let key = format!("workspaces/{}", Uuid::new_v4());
    let size = signed_for.len() as u64;
    let signed = lab.ctx.storage.sign_upload(&key, "application/gzip", &digest, size, MINUTE).await.unwrap();
    let mut request = reqwest::Client::new().put(&signed.url).body(body);
    for (name, value) in &signed.headers {
        request = request.header(name, value);
    }
    let answer = request.send().await.unwrap();
    if !answer.status().is_success() {
        return Err(answer.status().as_u16());
    }
    Ok(ArtifactRef {
        id: ArtifactId(Uuid::new_v4()),
        uri: lab.ctx.storage.uri(&key),
        hash: shared::domain::digest::hex(&digest),
        size_bytes: size,
        media_type: "application/gzip".into(),
    })
}

async fn the_signature_of_an_upload_covers_its_hash(target: Target) {
    let lab = target.lab_with_bucket().await;
    let digest = Sha256::digest(b"x");
    let signed = lab.ctx.storage.sign_upload("k", "text/plain", &digest, 1, MINUTE).await.unwrap();
    let url = signed.url.to_lowercase();
    let in_headers = url.contains("x-amz-signedheaders") && url.contains("x-amz-checksum-sha256");
    assert!(in_headers, "neither a signed header nor a signed parameter: {url}");
}
