//! Logs people in with their password at the issuer: Supabase Auth, or another one with its password grant.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::issuer::client;
use crate::config::LoginConfig;
use crate::error::Error;

const TIMEOUT: Duration = Duration::from_secs(10);
/// A token of a person has at most 8 KiB.
const MAX_ANSWER_BYTES: usize = 64 << 10;
const ISSUER: &str = "the issuer of logins";

/// The issuer's answer. Its refresh token is not used: a session replaces it.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
}

/// The JSON web token of the person with this password. None if the issuer refuses. Neither the password nor the token is
/// logged.
pub async fn password_login(config: &LoginConfig, email: &str, password: &str) -> Result<Option<String>, Error> {
    let request = Request::post(format!("{}/token?grant_type=password", config.url))
        .header(header::CONTENT_TYPE, "application/json")
        .header("apikey", &config.publishable_key)
        .body(Full::new(Bytes::from(json!({"email": email, "password": password}).to_string())))
        .map_err(|error| Error::internal("log somebody in", error))?;
    let answer = timeout(TIMEOUT, client()?.request(request)).await;
    let answer = answer.map_err(|late| Error::unavailable(ISSUER, late))?;
    let answer = answer.map_err(|error| Error::unavailable(ISSUER, error))?;
    let status = answer.status();
    if matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::UNPROCESSABLE_ENTITY) {
        return Ok(None);
    }
    if status != StatusCode::OK {
        return Err(Error::unavailable(ISSUER, format!("the status is {}", status.as_u16())));
    }
    let body = timeout(TIMEOUT, Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect()).await;
    let body = body.map_err(|late| Error::unavailable(ISSUER, late))?;
    let bytes = body.map_err(|error| Error::unavailable(ISSUER, error))?.to_bytes();
    // The error of the parser could show a part of the answer.
    let granted: Granted = serde_json::from_slice(&bytes).map_err(|_| Error::unavailable(ISSUER, "no token"))?;
    Ok(Some(granted.access_token))
}
