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
mod tests {
    use reqwest::Client;
    use shared::auth::Authenticator;
    use shared::config::{AuthConfig, AuthMode, IssuerConfig, KeySource};
    use shared::domain::principal::Via;
    use shared::domain::{Role, TenantId};
    use tempfile::TempDir;
    use tokio::net::TcpListener;

    use super::*;
    use crate::gateway::server;
    use crate::process::stop::{self, StopSender};

    struct Running {
        url: String,
        ann: NewUser,
        ben: NewUser,
        users: Vec<User>,
        http: Client,
        _folder: TempDir,
        _stop_sender: StopSender,
    }

    impl Running {
        async fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let tenant = TenantId("acme".into());
            let mut users = Users::open(folder.path()).unwrap();
            let mut new = |email, role| users.set(email, &tenant, role).unwrap().unwrap();
            let (ann, ben) = (new("ann@local.test", Role::Admin), new("ben@local.test", Role::Viewer));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let issuer = Issuer::new(folder.path(), port, users.all().to_vec()).unwrap();
            let url = issuer.url.clone();
            let (stop_sender, stop) = stop::channel();
            tokio::spawn(server::serve(listener, issuer.router(), || (), None, stop));
            Self {
                url,
                ann,
                ben,
                users: users.all().to_vec(),
                http: Client::new(),
                _folder: folder,
                _stop_sender: stop_sender,
            }
        }

        /// Status and body of a login.
        async fn login(&self, email: &str, password: &str) -> (u16, Value) {
            let body = json!({ "email": email, "password": password });
            let request =
                self.http.post(format!("{}/token?grant_type=password", self.url)).header("apikey", PUBLISHABLE_KEY);
            let answer = request.json(&body).send().await.unwrap();
            (answer.status().as_u16(), answer.json().await.unwrap())
        }

        fn authenticator(&self) -> Authenticator {
            let issuer = IssuerConfig {
                issuer: self.url.clone(),
                audience: "authenticated".into(),
                keys: KeySource::Url(format!("{}/.well-known/jwks.json", self.url)),
                hs256_secret: None,
                max_stale: Duration::from_hours(1),
            };
            let config = AuthConfig { mode: Some(AuthMode::On), issuer: Some(issuer), ..AuthConfig::default() };
            Authenticator::new(&config, TenantId("home".into()), None).unwrap()
        }
    }

    #[tokio::test]
    async fn the_functions_accept_the_tokens_of_a_login() {
        let running = Running::start().await;
        let authenticator = running.authenticator();
        for (new, user) in [&running.ann, &running.ben].into_iter().zip(&running.users) {
            let (status, session) = running.login(&new.email.to_uppercase(), &new.password).await;
            assert_eq!((status, &session["token_type"], &session["expires_in"]), (200, &json!("bearer"), &json!(3600)));
            let mut headers = HeaderMap::new();
            let token = session["access_token"].as_str().unwrap();
            headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            let caller = authenticator.identify(&headers, &shared::auth::RequestOrigin::default()).await.unwrap();
            assert_eq!((caller.tenant.0.as_str(), caller.subject), ("acme", user.id.to_string()));
            let Via::Jwt(login) = caller.via else { panic!("not by a JWT") };
            assert_eq!((login.email.as_deref(), login.aal.as_deref()), (Some(new.email.as_str()), Some("aal1")));
            assert!(login.at.is_some(), "when the person logged in");
            // One character of the signature.
            let forged =
                format!("Bearer {}{}", &token[..token.len() - 2], if token.ends_with("AA") { "BA" } else { "AA" });
            headers.insert(header::AUTHORIZATION, forged.parse().unwrap());
            assert!(authenticator.identify(&headers, &shared::auth::RequestOrigin::default()).await.is_err());
        }
    }

    #[tokio::test]
    async fn the_public_document_holds_no_private_part() {
        let running = Running::start().await;
        let answer = running.http.get(format!("{}/.well-known/jwks.json", running.url)).send().await.unwrap();
        assert_eq!(answer.headers()["cache-control"], "public, max-age=600");
        let document: Value = answer.json().await.unwrap();
        let key = document["keys"][0].as_object().unwrap();
        let members: Vec<&str> = key.keys().map(String::as_str).collect();
        assert_eq!(members, ["alg", "crv", "key_ops", "kid", "kty", "use", "x", "y"]);
    }

    #[tokio::test]
    async fn a_wrong_password_and_an_unknown_address_look_the_same_and_five_close_the_login() {
        let running = Running::start().await;
        let wrong = json!({ "code": 400, "error_code": "invalid_credentials", "msg": "Invalid login credentials" });
        for _ in 0..FAILURES {
            assert_eq!(running.login(&running.ann.email, &running.ben.password).await, (400, wrong.clone()));
            assert_eq!(running.login("nobody@local.test", "password").await, (400, wrong.clone()));
        }
        let (status, answer) = running.login(&running.ann.email, &running.ann.password).await;
        assert_eq!((status, &answer["error_code"]), (429, &json!("over_request_rate_limit")));
        assert_eq!(running.login(&running.ben.email, &running.ben.password).await.0, 200, "others log in");
    }

    #[tokio::test]
    async fn requests_that_are_no_login_are_refused_as_supabase_refuses_them() {
        let running = Running::start().await;
        let send = async |query: &str, key: &str, body: &'static str| {
            let request = running.http.post(format!("{}/token{query}", running.url)).header("apikey", key);
            let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
            answer.status().as_u16()
        };
        let good = r#"{"email": "ann@local.test", "password": "x"}"#;
        assert_eq!(send("?grant_type=password", "another", good).await, 401);
        assert_eq!(send("?grant_type=refresh_token", PUBLISHABLE_KEY, good).await, 400);
        assert_eq!(send("", PUBLISHABLE_KEY, good).await, 400);
        for body in ["", "{", "[]", r#"{"email": "ann@local.test"}"#, r#"{"email": 1, "password": "x"}"#] {
            assert_eq!(send("?grant_type=password", PUBLISHABLE_KEY, body).await, 400, "{body}");
        }
        // A form, which a page of another site could send.
        let form =
            running.http.post(format!("{}/token?grant_type=password", running.url)).header("apikey", PUBLISHABLE_KEY);
        assert_eq!(form.body(good).send().await.unwrap().status(), 400);
    }

    #[tokio::test]
    async fn a_restarted_issuer_signs_with_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = || Issuer::new(folder.path(), 1, Vec::new()).unwrap();
        assert_eq!(issuer().key.public(), issuer().key.public());
    }
}
