//! Artifacts: read, download, and upload of workspaces.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use shared::context::Ctx;
use shared::db::artifact;
use shared::domain::{ArtifactId, NewArtifact};
use shared::error::{Error, Problem};
use shared::http::{id_param, json_body};
use uuid::Uuid;

/// How long a signed URL can be used.
const SIGNED_FOR: Duration = Duration::from_mins(15);
/// Largest workspace archive.
const MAX_UPLOAD_BYTES: u64 = 64 << 20;

/// `GET /artifacts/{id}` -> the artifact's row.
pub async fn fetch(State(ctx): State<Ctx>, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    find(&ctx, &id).await.map(Json)
}

/// `GET /artifacts/{id}/download` -> 302 to a signed URL.
pub async fn download(State(ctx): State<Ctx>, Path(id): Path<String>) -> Result<Response, Error> {
    let row = find(&ctx, &id).await?;
    let signed = ctx.storage.sign_download(row["uri"].as_str().unwrap_or_default(), SIGNED_FOR).await?;
    let headers = [(header::LOCATION, signed.url), (header::CACHE_CONTROL, "no-store".into())];
    Ok((StatusCode::FOUND, headers).into_response())
}

/// `POST /workspaces {sha256, size_bytes, media_type, name}` -> 201 `{id, upload_url, headers, expires_in_s}`. The URL
/// takes exactly the bytes with that sha256; the id then stands in a plan's `workspace`.
pub async fn create_workspace(State(ctx): State<Ctx>, body: Bytes) -> Result<Response, Error> {
    let upload = Upload::parse(&json_body(&body)?)?;
    let id = ArtifactId(Uuid::now_v7());
    let tenant = &ctx.config.tenant;
    let key = format!("workspaces/{tenant}/{id}");
    let signed =
        ctx.storage.sign_upload(&key, &upload.media_type, &upload.sha256, upload.size_bytes, SIGNED_FOR).await?;
    let row = NewArtifact {
        id,
        name: upload.name,
        kind: "workspace".into(),
        uri: ctx.storage.uri(&key),
        hash: shared::domain::digest::hex(&upload.sha256),
        size_bytes: upload.size_bytes,
        media_type: upload.media_type,
        metadata: json!({}),
        made_from: Vec::new(),
    };
    artifact::artifact_insert_upload(&ctx.db, tenant, &row).await?;
    let answer = json!({
        "id": id,
        "uri": row.uri,
        "upload_url": signed.url,
        "headers": signed.headers,
        "expires_in_s": SIGNED_FOR.as_secs(),
    });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

struct Upload {
    sha256: Vec<u8>,
    size_bytes: u64,
    media_type: String,
    name: String,
}

impl Upload {
    fn parse(body: &Value) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let sha256 = body["sha256"].as_str().and_then(from_hex).unwrap_or_else(|| {
            problems.push(Problem::new("sha256", "must be the archive's sha256: 64 lower-case hex digits"));
            Vec::new()
        });
        let size_bytes = body["size_bytes"].as_u64().filter(|size| (1..=MAX_UPLOAD_BYTES).contains(size));
        let size_bytes = size_bytes.unwrap_or_else(|| {
            problems.push(Problem::new("size_bytes", format!("must be a whole number from 1 to {MAX_UPLOAD_BYTES}")));
            0
        });
        let media_type = match &body["media_type"] {
            Value::Null => "application/gzip".to_owned(),
            Value::String(given) if matches!(given.as_str(), "application/gzip" | "text/x-diff" | "text/plain") => {
                given.clone()
            }
            _ => {
                let allowed = "must be application/gzip (a tar.gz), text/x-diff or text/plain (a unified diff)";
                problems.push(Problem::new("media_type", allowed));
                String::new()
            }
        };
        let name = match &body["name"] {
            Value::Null => "workspace".to_owned(),
            Value::String(name) if !name.is_empty() && name.chars().count() <= 200 && !name.contains('\0') => {
                name.clone()
            }
            _ => {
                problems.push(Problem::new("name", "must have 1 to 200 characters"));
                String::new()
            }
        };
        if problems.is_empty() {
            Ok(Self { sha256, size_bytes, media_type, name })
        } else {
            Err(Error::Invalid(problems))
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if text.len() != 64 || !digits {
        return None;
    }
    (0..64).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

async fn find(ctx: &Ctx, id: &str) -> Result<Value, Error> {
    let id: ArtifactId = id_param("artifact", id)?;
    artifact::artifact_fetch(&ctx.db, &ctx.config.tenant, id)
        .await?
        .ok_or_else(|| Error::NotFound(format!("artifact {id}")))
}
