//! An issuer of tokens for people, with one key, and requests of callers that it or an API token identifies.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use shared::auth::NOFX_AUTHORIZATION;
use shared::config::{AuthConfig, AuthMode, IssuerConfig, KeySource};
use shared::domain::Role;
use tower::ServiceExt;

use crate::Lab;

const ISSUER: &str = "http://127.0.0.1/auth/v1";
/// Every answer of a function is smaller.
const MAX_ANSWER: usize = 8 << 20;

/// An issuer that every lab may trust.
pub struct Issuer(EcdsaKeyPair);

impl Issuer {
    /// A new key. From now on, the lab's functions take credentials of this issuer and API tokens, and nothing else.
    pub async fn of(lab: &mut Lab) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "test", "x": x, "y": y}]});
        let issuer = IssuerConfig {
            issuer: ISSUER.to_owned(),
            audience: "authenticated".to_owned(),
            keys: KeySource::Document(keys.to_string()),
            hs256_secret: None,
            max_stale: Duration::ZERO,
        };
        let auth = AuthConfig { mode: Some(AuthMode::On), issuer: Some(issuer), ..AuthConfig::default() };
        lab.ctx.config.auth = Arc::new(auth);
        let tenants = "update nofx.tenant set is_solo = false; delete from nofx.membership";
        lab.admin.batch_execute(tenants).await.expect("tenants with members");
        Self(pair)
    }

    /// An issuer with the same name and another key, which no lab trusts.
    pub fn stranger() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    /// A token for the person with this subject, who has just logged in.
    pub fn login(&self, subject: &str) -> String {
        let header = json!({"alg": "ES256", "kid": "test", "typ": "JWT"});
        let claims = json!({"iss": ISSUER, "aud": "authenticated", "exp": 9_000_000_000_i64, "sub": subject});
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl Lab {
    /// Makes a person a member of the lab's tenant. Their name is the subject.
    pub async fn member(&self, subject: &str, role: Role) {
        let sql =
            "insert into nofx.membership (tenant_id, subject, role, name, created_by) values ($1, $2, $3, $2, 'test')";
        self.admin.execute(sql, &[&self.tenant.0, &subject, &role.as_str()]).await.expect("a member");
    }
}

/// Requests of one caller to a function.
#[derive(Clone)]
pub struct CallerOf {
    function: Router,
    credential: String,
}

impl CallerOf {
    /// A caller with a JSON web token, a session or an API token.
    pub fn new(function: Router, credential: &str) -> Self {
        Self { function: shared::http::with_layers(function), credential: credential.to_owned() }
    }

    /// The status and the body.
    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(&NOFX_AUTHORIZATION, format!("Bearer {}", self.credential));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let answer = self.function.clone().oneshot(request.body(body).expect("a request")).await.expect("an answer");
        let status = answer.status().as_u16();
        let bytes = to_bytes(answer.into_body(), MAX_ANSWER).await.expect("a body");
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send("POST", path, Some(body)).await
    }
}
