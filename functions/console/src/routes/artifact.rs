//! Artifacts, their downloads, restores and deletions.

use std::time::Duration;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use shared::db::artifact;
use shared::db::console::{self, ArtifactDetail};
use shared::domain::artifact_storage::{MAX_REASON_CHARS, RESTORE_DAYS, RestoreTier};
use shared::domain::fields::{Fields, Most};
use shared::domain::hidden::Lines;
use shared::domain::{ArtifactId, ArtifactRef};
use shared::error::{Code, Error};
use shared::flow::change_storage::{Changed, check_readable, delete_artifact, restore_artifact};
use shared::http::{self, ACTOR, Form, Query, REASON, id_param};
use shared::storage::Beginning;
use shared::{signing, telemetry};

use super::Visit;
use super::document::MAX_BYTES;
use super::{failure, redirect, show};
use crate::archive::Listing;
use crate::content::Content;
use crate::page::{self, ArtifactPage, Base, RefusedStorage, StoredArtifact as Stored, Unreadable};
use crate::signature::{self, Signature};
use crate::{csrf, viewer};

/// How long a signed URL is valid.
const SIGNED_URL_LIFETIME: Duration = Duration::from_mins(5);
/// The part of an artifact that a page reads.
const PREVIEW_BYTES: u64 = 64 * 1024;
/// The same of an archive, and the largest picture that it shows.
const LARGE_BYTES: u64 = 2 * 1024 * 1024;

/// `GET /ui/artifacts/{id}`.
pub async fn page(visit: Visit, Path(id): Path<String>, headers: HeaderMap) -> Response {
    show_page(&visit, &headers, &id, Base::RUN, None, StatusCode::OK).await
}

/// `POST /ui/artifacts/{id}/restore`: redirects to the artifact (303), or shows it with the reason why not.
pub async fn restore(visit: Visit, Path(id): Path<String>, headers: HeaderMap, form: Form) -> Response {
    change(&visit, &id, &headers, &form, "restore", async |id| {
        let (days, tier, actor) = form.read(&[&["days"], &["tier"], ACTOR, &["csrf"]], |fields| {
            let days = fields.read("days", |text| {
                let days = text.as_str().and_then(|text| text.parse::<u32>().ok());
                days.filter(|days| RESTORE_DAYS.contains(&u64::from(*days))).ok_or_else(|| {
                    format!("must be a whole number from {} to {}", RESTORE_DAYS.start(), RESTORE_DAYS.end())
                })
            });
            let tier = fields.read("tier", |text| {
                let tier = text.as_str().and_then(RestoreTier::parse);
                tier.ok_or_else(|| "must be one of the choices".to_owned())
            });
            fields.require(&["days"]);
            Some((days?, tier.unwrap_or_default(), named(fields)))
        })?;
        restore_artifact(&visit.session, id, &actor, days, tier).await
    })
    .await
}

/// `POST /ui/artifacts/{id}/delete`: redirects to the artifact (303), or shows it with the reason why not.
pub async fn delete(visit: Visit, Path(id): Path<String>, headers: HeaderMap, form: Form) -> Response {
    change(&visit, &id, &headers, &form, "delete", async |id| {
        let (reason, actor) = form.read(&[REASON, ACTOR, &["csrf"]], |fields| {
            fields.require(&["reason"]);
            let reason = fields.readable("reason", Most::Chars(MAX_REASON_CHARS), Lines::Many).map(str::to_owned);
            Some((reason?, named(fields)))
        })?;
        delete_artifact(&visit.session, id, &actor, &reason).await
    })
    .await
}

/// Who acts. A session says it, otherwise the form does.
fn named(fields: &mut Fields<'_, '_>) -> String {
    if !viewer::is_known() {
        fields.require(&["actor"]);
    }
    http::actor(fields)
}

async fn change(
    visit: &Visit,
    id: &str,
    headers: &HeaderMap,
    form: &Form,
    verb: &'static str,
    act: impl AsyncFnOnce(ArtifactId) -> Result<Changed, Error>,
) -> Response {
    let base = Base::GATE;
    let artifact: ArtifactId = match id_param("artifact", id) {
        Ok(id) => id,
        Err(error) => return failure(base, &error),
    };
    if let Err(sentence) = csrf::check(headers, visit.ctx.config.public_url.as_deref(), form.text("csrf")) {
        return failure(base, &Error::Forbidden(sentence.to_owned()));
    }
    let (error, status) = match act(artifact).await {
        Ok(_) => return redirect(&base.to(&format!("artifacts/{artifact}"))),
        Err(error @ Error::Invalid(_)) => (error, StatusCode::BAD_REQUEST),
        Err(error @ Error::Conflict(..)) => (error, StatusCode::CONFLICT),
        Err(error) => return failure(base, &error),
    };
    let why = error.to_string();
    let refused = RefusedStorage { verb, actor: form.text("actor"), reason: form.text("reason"), why: &why };
    show_page(visit, headers, id, base, Some(refused), status).await
}

async fn show_page(
    visit: &Visit,
    headers: &HeaderMap,
    id: &str,
    base: Base,
    refused: Option<RefusedStorage<'_>>,
    status: StatusCode,
) -> Response {
    let detail = match find(visit, id).await {
        Ok(detail) => detail,
        Err(error) => return failure(base, &error),
    };
    let (stored, signature) = futures::join!(stored(visit, &detail), signature(visit, &detail));
    // A row says more than an error page.
    let stored = stored.map_err(|error| unreadable(&detail, error));
    let mut response = show(headers, |token| {
        let (stored, signature) = (stored.as_ref(), signature.as_ref());
        page::artifact_page(&ArtifactPage { base, token, detail: &detail, refused, stored, signature })
    });
    *response.status_mut() = status;
    let policy = stored.ok().and_then(|stored| stored.image_url).and_then(|url| crate::policy_with_images(&url));
    if let Some(policy) = policy.and_then(|policy| HeaderValue::try_from(policy).ok()) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

async fn find(visit: &Visit, id: &str) -> Result<ArtifactDetail, Error> {
    let id: ArtifactId = id_param("artifact", id)?;
    let detail = console::artifact_detail_fetch(&visit.session, id).await?;
    detail.ok_or_else(|| Error::NotFound(format!("artifact {id}")))
}

fn unreadable(detail: &ArtifactDetail, error: Error) -> Unreadable {
    match error {
        Error::NotFound(_) => Unreadable::Gone,
        Error::Conflict(Code::ArtifactArchived | Code::ArtifactDeleted, _) if !detail.storage.state.is_readable() => {
            Unreadable::Stored
        }
        // The storage has moved it, and the row does not say so yet.
        Error::Conflict(Code::ArtifactArchived, why) | Error::Forbidden(why) => Unreadable::Refused(why),
        Error::Conflict(..) => Unreadable::Changed,
        error => {
            telemetry::report(&error, "read an artifact");
            Unreadable::Away
        }
    }
}

/// Reads the beginning. Reads all of what must be verified, evidence and pictures, and more of an archive, because its list
/// of files is spread over it.
async fn stored(visit: &Visit, detail: &ArtifactDetail) -> Result<Stored, Error> {
    let artifact = &detail.artifact;
    check_readable(artifact.id, &detail.storage)?;
    let limit = if detail.signed.is_some() && artifact.size_bytes <= MAX_BYTES { MAX_BYTES } else { PREVIEW_BYTES };
    let beginning = visit.ctx.storage.read_start(artifact, limit).await?;
    let (mut is_verified, mut read_bytes) = (beginning.is_whole, beginning.bytes.len() as u64);
    let mut bytes = beginning.bytes;
    bytes.truncate(usize::try_from(PREVIEW_BYTES).unwrap_or(usize::MAX));
    let is_whole = bytes.len() as u64 == artifact.size_bytes;
    let content = Content::of(&bytes, is_whole, &artifact.media_type, &detail.name);
    let (mut image_url, mut files) = (None, None);
    match &content {
        Content::Image(image) if artifact.size_bytes <= LARGE_BYTES => {
            if !is_verified {
                visit.ctx.storage.get(artifact, LARGE_BYTES).await?;
                (is_verified, read_bytes) = (true, artifact.size_bytes);
            }
            image_url =
                Some(visit.ctx.storage.sign_view(&artifact.uri, image.media_type, SIGNED_URL_LIFETIME).await?.url);
        }
        Content::Archive => {
            let Beginning { bytes, is_whole } = visit.ctx.storage.read_start(artifact, LARGE_BYTES).await?;
            (is_verified, read_bytes) = (is_whole, bytes.len() as u64);
            let listing = tokio::task::spawn_blocking(move || Listing::of(&bytes, is_whole)).await;
            files = Some(listing.map_err(|error| Error::internal("list the files of an archive", error))?);
        }
        _ => {}
    }
    Ok(Stored { content, is_verified, read_bytes, shown_bytes: bytes.len() as u64, files, image_url })
}

/// Checks the attestation of a gate. What cannot be checked must not hide the artifact.
async fn signature(visit: &Visit, detail: &ArtifactDetail) -> Option<Signature> {
    let signed = detail.signed.as_ref()?;
    let Some(attestation) = &signed.attestation else { return Some(Signature::Missing) };
    let evidence = signed.evidence.as_ref().map(|evidence| evidence.hash.as_str());
    Some(checked(visit, attestation, evidence).await.unwrap_or_else(|error| {
        telemetry::report(&error, "check an attestation");
        Signature::Unchecked(error.to_string())
    }))
}

async fn checked(visit: &Visit, attestation: &ArtifactRef, evidence: Option<&str>) -> Result<Signature, Error> {
    let envelope = match visit.ctx.storage.get(attestation, MAX_BYTES).await {
        Ok(envelope) => envelope,
        Err(error @ Error::Conflict(Code::ArtifactChanged, _)) => return Ok(Signature::Wrong(error.to_string())),
        Err(error) => return Err(error),
    };
    let keys = signing::public_keys(&visit.ctx.config.signing, &visit.ctx.sdk).await?;
    Ok(signature::check(&envelope, &keys, evidence))
}

/// `GET /ui/artifacts/signed?id=`.
pub async fn signed(visit: Visit, query: Query) -> Response {
    match sign(&visit, query.get("id").unwrap_or_default()).await {
        Ok(url) => (StatusCode::FOUND, [(header::LOCATION, url)]).into_response(),
        Err(error) => failure(Base(1), &error),
    }
}

async fn sign(visit: &Visit, id: &str) -> Result<String, Error> {
    let id: ArtifactId = id_param("artifact", id)?;
    let row = artifact::artifact_fetch(&visit.session, id).await?;
    let row = row.ok_or_else(|| Error::NotFound(format!("artifact {id}")))?;
    check_readable(row.id, &row.storage)?;
    let signed = visit.ctx.storage.sign_attachment(&row.uri, &row.name, SIGNED_URL_LIFETIME).await?;
    Ok(signed.url)
}
