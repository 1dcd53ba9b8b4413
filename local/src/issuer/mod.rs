//! An issuer of tokens for people on a laptop: the part of Supabase Auth (GoTrue) that a login with a password needs, with the
//! same requests, answers and claims. It signs with ES256, and listens on the loopback interface only.
//!
//! It has no sign-up, no refresh tokens and no mail: `nofx dev --auth` makes its users, and prints a password once.

mod key;
mod password;
mod users;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use key::Key;
pub use users::{NewUser, User, Users};

/// The path of all addresses, as on Supabase.
const BASE: &str = "/auth/v1";
/// What clients send in the header `apikey`. It is public, and keeps no secret.
pub const PUBLISHABLE_KEY: &str = "sb_publishable_nofx_dev";
/// How long a token counts.
const LASTS: Duration = Duration::from_hours(1);
const MAX_BODY_BYTES: usize = 16 << 10;
/// How many passwords are hashed at a time.
const HASHES: usize = 2;
/// So many wrong passwords in a minute close a user's login until the minute is over.
const FAILURES: usize = 5;
const FAILURE_WINDOW: Duration = Duration::from_mins(1);

/// The issuer. It signs for the users in its folder.
#[derive(Debug)]
pub struct Issuer {
    url: String,
    key: Key,
    users: Vec<User>,
    hashes: Semaphore,
    /// Times of wrong passwords, by the id of the user.
    failures: Mutex<BTreeMap<Uuid, Vec<Instant>>>,
}

impl Issuer {
    /// The issuer on this port, with the key and these users of a folder.
    pub fn new(folder: &Path, port: u16, users: Vec<User>) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self {
            url: format!("http://127.0.0.1:{port}{BASE}"),
            key: Key::ready(&folder.join("key.pem"))?,
            users,
            hashes: Semaphore::new(HASHES),
            failures: Mutex::default(),
        })
    }

    /// What tells the functions about the issuer.
    pub fn variables(&self) -> [(&'static str, String); 3] {
        [
            ("AUTH_ISSUER", self.url.clone()),
            ("AUTH_URL", self.url.clone()),
            ("AUTH_PUBLISHABLE_KEY", PUBLISHABLE_KEY.to_owned()),
        ]
    }

    pub fn router(self) -> Router {
        Router::new()
            .route(&format!("{BASE}/.well-known/jwks.json"), get(jwks))
            .route(&format!("{BASE}/token"), post(token))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(Arc::new(self))
    }

    /// A token of this user, with what Supabase says beside it.
    fn session(&self, user: &User) -> Result<Value, Refusal> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let expires_at = now_s + LASTS.as_secs();
        let app_metadata = json!({ "provider": "email", "providers": ["email"], "tenant_id": user.tenant });
        let claims = json!({
            "iss": self.url, "aud": "authenticated", "sub": user.id, "role": "authenticated", "email": user.email,
            "iat": now_s, "exp": expires_at, "app_metadata": app_metadata, "user_metadata": {}, "is_anonymous": false,
            "aal": "aal1", "amr": [{ "method": "password", "timestamp": now_s }], "session_id": Uuid::new_v4(),
        });
        let token = self.key.sign(&claims).map_err(|_| Refusal::INTERNAL)?;
        Ok(json!({
            "access_token": token, "token_type": "bearer", "expires_in": LASTS.as_secs(), "expires_at": expires_at,
            "user": { "id": user.id, "aud": "authenticated", "role": "authenticated", "email": user.email,
                      "app_metadata": app_metadata, "user_metadata": {}, "is_anonymous": false },
        }))
    }

    /// Whether the user's login is open. A wrong password counts from now on.
    fn count_failures(&self, user: Uuid, is_wrong: bool) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let times = failures.entry(user).or_default();
        times.retain(|time| time.elapsed() < FAILURE_WINDOW);
        let is_open = times.len() < FAILURES;
        if is_wrong && is_open {
            times.push(Instant::now());
        }
        is_open
    }
}

/// An answer of Supabase Auth to a request that it refuses.
struct Refusal(StatusCode, &'static str, &'static str);

impl Refusal {
    const CREDENTIALS: Self = Self(StatusCode::BAD_REQUEST, "invalid_credentials", "Invalid login credentials");
    const TOO_OFTEN: Self =
        Self(StatusCode::TOO_MANY_REQUESTS, "over_request_rate_limit", "Request rate limit reached");
    const INTERNAL: Self = Self(StatusCode::INTERNAL_SERVER_ERROR, "unexpected_failure", "Unexpected failure");
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, code, message) = self;
        (status, Json(json!({ "code": status.as_u16(), "error_code": code, "msg": message }))).into_response()
    }
}

async fn jwks(State(issuer): State<Arc<Issuer>>) -> impl IntoResponse {
    let cache = [(header::CACHE_CONTROL, "public, max-age=600")];
    (cache, Json(json!({ "keys": [issuer.key.public()] })))
}

#[derive(Deserialize)]
struct Grant {
    grant_type: Option<String>,
}

#[derive(Deserialize)]
struct Password {
    email: String,
    password: String,
}

async fn token(
    State(issuer): State<Arc<Issuer>>,
    Query(Grant { grant_type }): Query<Grant>,
    headers: HeaderMap,
    body: Result<Json<Password>, JsonRejection>,
) -> Response {
    // Supabase's gateway answers this.
    if headers.get("apikey").is_none_or(|key| key != PUBLISHABLE_KEY) {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "message": "Invalid API key" }))).into_response();
    }
    if grant_type.as_deref() != Some("password") {
        let answer = json!({ "error": "unsupported_grant_type", "error_description": "" });
        return (StatusCode::BAD_REQUEST, Json(answer)).into_response();
    }
    let Ok(Json(Password { email, password })) = body else {
        return Refusal(StatusCode::BAD_REQUEST, "bad_json", "Could not parse request body as JSON").into_response();
    };
    let session = match login(&issuer, &email, password).await {
        Ok(user) => issuer.session(user),
        Err(refusal) => Err(refusal),
    };
    let not_stored = [(header::CACHE_CONTROL, "no-store")];
    session.map_or_else(IntoResponse::into_response, |session| (not_stored, Json(session)).into_response())
}

/// The user with this e-mail address and password. An unknown address takes as long as a wrong password.
async fn login<'a>(issuer: &'a Issuer, email: &str, password: String) -> Result<&'a User, Refusal> {
    let user = issuer.users.iter().find(|user| user.email.eq_ignore_ascii_case(email));
    if user.is_some_and(|user| !issuer.count_failures(user.id, false)) {
        return Err(Refusal::TOO_OFTEN);
    }
    let _turn = issuer.hashes.acquire().await.map_err(|_| Refusal::INTERNAL)?;
    let stored = user.map(|user| user.password.clone()).unwrap_or_default();
    let is_right = tokio::task::spawn_blocking(move || stored.is(&password)).await.map_err(|_| Refusal::INTERNAL)?;
    match user {
        Some(user) if is_right => Ok(user),
        Some(user) if !issuer.count_failures(user.id, true) => Err(Refusal::TOO_OFTEN),
        _ => Err(Refusal::CREDENTIALS),
    }
}

#[cfg(test)]
#[path = "issuer_tests.rs"]
mod tests;
