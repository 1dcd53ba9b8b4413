//! Artifacts, and their downloads.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use shared::context::Ctx;
use shared::db::artifact;
use shared::db::console::{self, ArtifactDetail};
use shared::domain::{ArtifactId, ArtifactRef};
use shared::error::Error;
use shared::http::{Query, id_param};
use shared::storage::Beginning;
use shared::{signing, telemetry};

use super::document::MAX_BYTES;
use super::failure;
use crate::archive::Listing;
use crate::content::Content;
use crate::page::{self, ArtifactPage, Base, StoredArtifact as Stored, Unreadable};
use crate::signature::{self, Signature};

/// How long a signed URL is valid.
const SIGNED_URL_LIFETIME: Duration = Duration::from_mins(5);
/// The part of an artifact that a page reads.
const PREVIEW_BYTES: u64 = 64 * 1024;
/// The same of an archive, and the largest picture that it shows.
const LARGE_BYTES: u64 = 2 * 1024 * 1024;

/// `GET /ui/artifacts/{id}`.
pub async fn page(State(ctx): State<Ctx>, Path(id): Path<String>) -> Response {
    let detail = match find(&ctx, &id).await {
        Ok(detail) => detail,
        Err(error) => return failure(Base::RUN, &error),
    };
    let (stored, signature) = futures::join!(stored(&ctx, &detail), signature(&ctx, &detail));
    // A row says more than an error page.
    let stored = stored.map_err(unreadable);
    let shown =
        ArtifactPage { base: Base::RUN, detail: &detail, stored: stored.as_ref(), signature: signature.as_ref() };
    let mut response = Html(page::artifact_page(&shown)).into_response();
    let policy = stored.ok().and_then(|stored| stored.image_url).and_then(|url| crate::policy_with_images(&url));
    if let Some(policy) = policy.and_then(|policy| HeaderValue::try_from(policy).ok()) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

async fn find(ctx: &Ctx, id: &str) -> Result<ArtifactDetail, Error> {
    let id: ArtifactId = id_param("artifact", id)?;
    let detail = console::artifact_detail_fetch(&ctx.db, &ctx.config.tenant, id).await?;
    detail.ok_or_else(|| Error::NotFound(format!("artifact {id}")))
}

fn unreadable(error: Error) -> Unreadable {
    match error {
        Error::NotFound(_) => Unreadable::Gone,
        Error::Conflict(..) => Unreadable::Changed,
        Error::Forbidden(why) => Unreadable::Refused(why),
        error => {
            telemetry::report(&error, "read an artifact");
            Unreadable::Away
        }
    }
}

/// Reads the beginning. Reads all of what must be verified, evidence and pictures, and more of an archive, because its list
/// of files is spread over it.
async fn stored(ctx: &Ctx, detail: &ArtifactDetail) -> Result<Stored, Error> {
    let artifact = &detail.artifact;
    let limit = if detail.signed.is_some() && artifact.size_bytes <= MAX_BYTES { MAX_BYTES } else { PREVIEW_BYTES };
    let beginning = ctx.storage.read_start(artifact, limit).await?;
    let (mut is_verified, mut read_bytes) = (beginning.is_whole, beginning.bytes.len() as u64);
    let mut bytes = beginning.bytes;
    bytes.truncate(usize::try_from(PREVIEW_BYTES).unwrap_or(usize::MAX));
    let is_whole = bytes.len() as u64 == artifact.size_bytes;
    let content = Content::of(&bytes, is_whole, &artifact.media_type, &detail.name);
    let (mut image_url, mut files) = (None, None);
    match &content {
        Content::Image(image) if artifact.size_bytes <= LARGE_BYTES => {
            if !is_verified {
                ctx.storage.get(artifact, LARGE_BYTES).await?;
                (is_verified, read_bytes) = (true, artifact.size_bytes);
            }
            image_url = Some(ctx.storage.sign_view(&artifact.uri, image.media_type, SIGNED_URL_LIFETIME).await?.url);
        }
        Content::Archive => {
            let Beginning { bytes, is_whole } = ctx.storage.read_start(artifact, LARGE_BYTES).await?;
            (is_verified, read_bytes) = (is_whole, bytes.len() as u64);
            let listing = tokio::task::spawn_blocking(move || Listing::of(&bytes, is_whole)).await;
            files = Some(listing.map_err(|error| Error::internal("list the files of an archive", error))?);
        }
        _ => {}
    }
    Ok(Stored { content, is_verified, read_bytes, shown_bytes: bytes.len() as u64, files, image_url })
}

/// Checks the attestation of a gate. What cannot be checked must not hide the artifact.
async fn signature(ctx: &Ctx, detail: &ArtifactDetail) -> Option<Signature> {
    let signed = detail.signed.as_ref()?;
    let Some(attestation) = &signed.attestation else { return Some(Signature::Missing) };
    let evidence = signed.evidence.as_ref().map(|evidence| evidence.hash.as_str());
    Some(checked(ctx, attestation, evidence).await.unwrap_or_else(|error| {
        telemetry::report(&error, "check an attestation");
        Signature::Unchecked(error.to_string())
    }))
}

async fn checked(ctx: &Ctx, attestation: &ArtifactRef, evidence: Option<&str>) -> Result<Signature, Error> {
    let envelope = match ctx.storage.get(attestation, MAX_BYTES).await {
        Ok(envelope) => envelope,
        Err(error @ Error::Conflict(..)) => return Ok(Signature::Wrong(error.to_string())),
        Err(error) => return Err(error),
    };
    let keys = signing::public_keys(&ctx.config.signing, &ctx.sdk).await?;
    Ok(signature::check(&envelope, &keys, evidence))
}

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
    let signed = ctx.storage.sign_attachment(&row.uri, &row.name, SIGNED_URL_LIFETIME).await?;
    Ok(signed.url)
}
