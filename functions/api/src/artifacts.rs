//! Artifacts: read, download, restore, delete, and upload of workspaces.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use shared::context::Ctx;
use shared::db::{Page, Session, artifact};
use shared::domain::artifact_storage::{MAX_REASON_CHARS, RESTORE_DAYS, RestoreTier, TIERS};
use shared::domain::digest::hex;
use shared::domain::fields::{Most, Names};
use shared::domain::hidden::Lines;
use shared::domain::{ArtifactId, RunId};
use shared::error::Error;
use shared::flow::change_storage::{Changed, check_readable, delete_artifact, restore_artifact};
use shared::flow::store_workspace::new_workspace;
use shared::http::{self, ACTOR, BasePath, Body, Condition, Query, REASON, id_param, not_given_out, page_of};
use shared::view::{Artifact, ArtifactPage, ArtifactSummary, Upload};

use crate::runs::version;

/// How long the signed URL of a download is valid. It needs no credentials.
const DOWNLOAD_FOR: Duration = Duration::from_mins(5);
/// The same of an upload, which accepts only the bytes with its sha256.
const UPLOAD_FOR: Duration = Duration::from_mins(15);
/// Maximum size of a workspace archive.
pub const MAX_UPLOAD_BYTES: u64 = 64 << 20;

/// `GET /runs/{id}/artifacts?after=&limit=` -> `{artifacts, next}`, oldest first.
pub async fn list(
    session: Session,
    base_path: BasePath,
    Path(id): Path<String>,
    query: Query,
    condition: Condition,
) -> Result<Response, Error> {
    let id: RunId = id_param("run", &id)?;
    let (after, limit) = (query.after::<ArtifactId>()?, query.limit()?);
    let version = version(&session, id).await?;
    let answer = async {
        let page = page(&session, &base_path, id, after, limit).await?;
        if let (true, Some(after)) = (page.items.is_empty(), after)
            && artifact::artifact_fetch(&session, after).await?.is_none()
        {
            return Err(not_given_out());
        }
        let next = page.next(|artifact| artifact.id);
        Ok(page_of(ArtifactPage { artifacts: page.items, next }, next, &query))
    };
    condition.answer(&version, answer).await
}

/// Artifacts of a run. Metadata that is too large for a list has the address of the artifact that shows it.
pub async fn page(
    session: &Session,
    base_path: &BasePath,
    run: RunId,
    after: Option<ArtifactId>,
    limit: i64,
) -> Result<Page<ArtifactSummary>, Error> {
    let mut page = artifact::artifact_list(session, run, after, limit).await?;
    for artifact in &mut page.items {
        if let Some(omitted) = &mut artifact.metadata_omitted {
            omitted.href = base_path.to(&format!("/artifacts/{}", artifact.id));
        }
    }
    Ok(page)
}

/// `GET /artifacts/{id}` -> the artifact's row.
pub async fn fetch(session: Session, Path(id): Path<String>) -> Result<Json<Artifact>, Error> {
    find(&session, &id).await.map(Json)
}

/// `GET /artifacts/{id}/download` -> 302 to a signed URL.
pub async fn download(State(ctx): State<Ctx>, session: Session, Path(id): Path<String>) -> Result<Response, Error> {
    let row = find(&session, &id).await?;
    check_readable(row.id, &row.storage)?;
    let signed = ctx.storage.sign_download(&row.uri, DOWNLOAD_FOR).await?;
    let headers = [(header::LOCATION, signed.url), (header::CACHE_CONTROL, "no-store".into())];
    Ok((StatusCode::FOUND, headers).into_response())
}

/// `POST /artifacts/{id}/restore {days, tier, actor}` -> 202 `{id, storage}`, or 200 if nothing had to be done.
pub async fn restore(session: Session, Path(id): Path<String>, body: Body) -> Result<Response, Error> {
    let id: ArtifactId = id_param("artifact", &id)?;
    let (days, tier, actor) = body.read(RESTORE, |fields| {
        fields.require(&["days"]);
        let days = fields.whole("days", RESTORE_DAYS);
        let tier = fields.read("tier", |value| {
            let tier = value.as_str().and_then(RestoreTier::parse);
            tier.ok_or_else(|| format!("must be one of {}", TIERS.join(", ")))
        });
        Some((days?, tier.unwrap_or_default(), http::actor(fields)))
    })?;
    restore_artifact(&session, id, &actor, days, tier).await.map(accepted)
}

/// `DELETE /artifacts/{id} {reason, actor}` -> 202 `{id, storage}`, or 200 if it was deleted before.
pub async fn delete(session: Session, Path(id): Path<String>, body: Body) -> Result<Response, Error> {
    let id: ArtifactId = id_param("artifact", &id)?;
    let (reason, actor) = body.read(DELETION, |fields| {
        fields.require(&["reason"]);
        let reason = fields.readable("reason", Most::Chars(MAX_REASON_CHARS), Lines::Many);
        Some((reason?.to_owned(), http::actor(fields)))
    })?;
    delete_artifact(&session, id, &actor, &reason).await.map(accepted)
}

pub const RESTORE: &[Names] = &[&["days"], &["tier"], ACTOR];
pub const DELETION: &[Names] = &[REASON, ACTOR];

/// The sweeper does it within minutes.
fn accepted(changed: Changed) -> Response {
    let status = if changed.is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
    (status, Json(changed.change)).into_response()
}

/// `POST /workspaces {sha256, size_bytes, media_type, name}` -> 201 `{id, uri, upload_url, headers, expires_in_s}`. The
/// URL accepts only the bytes with that sha256. The id goes into a plan's `workspace`.
pub async fn create_workspace(State(ctx): State<Ctx>, session: Session, body: Body) -> Result<Response, Error> {
    let upload = NewUpload::parse(&body)?;
    let hash = hex(&upload.sha256);
    let (key, row) = new_workspace(&ctx, session.tenant(), upload.name, &upload.media_type, hash, upload.size_bytes);
    // The row comes first: only an admitted caller gets a signed URL.
    artifact::artifact_upload(&session, &row).await?;
    let signed = ctx.storage.sign_upload(&key, &row.media_type, &upload.sha256, row.size_bytes, UPLOAD_FOR).await?;
    let upload = Upload {
        id: row.id,
        uri: row.uri,
        upload_url: signed.url,
        headers: signed.headers,
        expires_in_s: UPLOAD_FOR.as_secs(),
    };
    Ok((StatusCode::CREATED, Json(upload)).into_response())
}

pub const UPLOAD: &[Names] = &[&["sha256"], &["size_bytes"], &["media_type"], &["name"]];
pub const MEDIA_TYPES: [&str; 3] = ["application/gzip", "text/x-diff", "text/plain"];

struct NewUpload {
    sha256: Vec<u8>,
    size_bytes: u64,
    media_type: String,
    name: String,
}

impl NewUpload {
    fn parse(body: &Body) -> Result<Self, Error> {
        body.read(UPLOAD, |fields| {
            fields.require(&["sha256", "size_bytes"]);
            let sha256 = fields.read("sha256", |value| {
                let digest = value.as_str().and_then(from_hex);
                digest.ok_or_else(|| "must be the archive's sha256: 64 lower-case hex digits".to_owned())
            });
            let size_bytes = fields.whole("size_bytes", 1..=MAX_UPLOAD_BYTES);
            let media_type = fields.read("media_type", |value| {
                let known = MEDIA_TYPES.into_iter().find(|known| value == known);
                known.ok_or_else(|| {
                    "must be application/gzip (a tar.gz), text/x-diff or text/plain (a unified diff)".to_owned()
                })
            });
            let name = fields.filled("name", Most::Chars(200)).unwrap_or("workspace").to_owned();
            let media_type = media_type.unwrap_or(MEDIA_TYPES[0]).to_owned();
            Some(Self { sha256: sha256?, size_bytes: size_bytes?, media_type, name })
        })
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if text.len() != 64 || !digits {
        return None;
    }
    (0..64).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

async fn find(session: &Session, id: &str) -> Result<Artifact, Error> {
    let id: ArtifactId = id_param("artifact", id)?;
    artifact::artifact_fetch(session, id).await?.ok_or_else(|| Error::NotFound(format!("artifact {id}")))
}
