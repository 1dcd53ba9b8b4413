//! `token`: what it costs to verify the credential of a request in the process, without the database. The path is that of
//! a request: header, form, signature and claims.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use shared::auth::{ApiToken, Authenticator, RequestOrigin};
use shared::config::{AuthConfig, AuthMode, IssuerConfig, KeySource};
use shared::domain::{Kind, TenantId, TokenId};
use uuid::Uuid;

use crate::stats::{self, Times, rounded};

const ISSUER: &str = "https://abc.supabase.co/auth/v1";
const SECRET: &str = "a-shared-secret-of-the-benchmark-with-more-than-32-bytes";
const WARM_UP: usize = 200;
const REPEATS: usize = 5_000;

pub async fn run() -> Result<()> {
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048)?;
    let door = authenticator(&ec, &rsa)?;
    let secret = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let random = SystemRandom::new();
    let es256 = jwt("ES256", |signed| Ok(ec.sign(&random, signed)?.as_ref().to_vec()))?;
    let rs256 = jwt("RS256", |signed| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(&RSA_PKCS1_SHA256, &random, signed, &mut signature)?;
        Ok(signature)
    })?;
    let hs256 = jwt("HS256", |signed| Ok(hmac::sign(&secret, signed).as_ref().to_vec()))?;
    let api_token = ApiToken::generate(Kind::Agent, TokenId(Uuid::now_v7()), TenantId("bench".into()))?.expose();
    for (kind, text) in [("api_token", api_token), ("ES256", es256), ("RS256", rs256), ("HS256", hs256)] {
        measure(&door, kind, &text).await?;
    }
    Ok(())
}

fn authenticator(ec: &EcdsaKeyPair, rsa: &RsaKeyPair) -> Result<Authenticator> {
    let point = ec.public_key().as_ref();
    let part = |from: usize, to: usize| URL_SAFE_NO_PAD.encode(point.get(from..to).unwrap_or_default());
    // RSAPublicKey in DER: headers and a zero, n of 256 bytes, and e.
    let modulus = rsa.public_key().as_ref().get(9..265).ok_or_else(|| anyhow!("another form of an RSA key"))?;
    let keys = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "kid": "ES256", "x": part(1, 33), "y": part(33, 65)},
        {"kty": "RSA", "kid": "RS256", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB"},
    ]});
    let issuer = IssuerConfig {
        issuer: ISSUER.to_owned(),
        audience: "authenticated".to_owned(),
        keys: KeySource::Document(keys.to_string()),
        hs256_secret: Some(SECRET.into()),
        max_stale: Duration::ZERO,
    };
    let config = AuthConfig { mode: Some(AuthMode::On), issuer: Some(issuer), ..AuthConfig::default() };
    Ok(Authenticator::new(&config, TenantId("bench".into()), None)?)
}

/// A token like those of Supabase.
fn jwt(alg: &str, sign: impl Fn(&[u8]) -> Result<Vec<u8>>) -> Result<String> {
    let header = json!({"alg": alg, "kid": alg, "typ": "JWT"});
    let claims = json!({
        "iss": ISSUER, "aud": "authenticated", "exp": 9_000_000_000_i64, "iat": 1_700_000_000, "role": "authenticated",
        "sub": Uuid::now_v7(), "email": "ann@acme.test", "phone": "", "aal": "aal1", "is_anonymous": false,
        "session_id": Uuid::now_v7(), "amr": [{"method": "password", "timestamp": 1_700_000_000}],
        "app_metadata": {"provider": "email", "providers": ["email"], "tenant_id": "bench"},
        "user_metadata": {"name": "Ann", "email": "ann@acme.test", "email_verified": true},
    });
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

async fn measure(door: &Authenticator, kind: &str, text: &str) -> Result<()> {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, format!("Bearer {text}").parse()?);
    let origin = RequestOrigin { request_id: "bench", ..RequestOrigin::default() };
    let mut times = Times::default();
    for at in 0..WARM_UP + REPEATS {
        let started = Instant::now();
        let caller = door.identify(&headers, &origin).await;
        let took = started.elapsed();
        caller.map_err(|denied| anyhow!("{kind} is refused: {}", denied.reason()))?;
        if at >= WARM_UP {
            times.add(took);
        }
    }
    let us = |percent: usize| rounded(times.percentile_ms(percent) * 1_000.0);
    stats::print(&json!({
        "bench": "token",
        "kind": kind,
        "bytes": text.len(),
        "requests": times.count(),
        "p50_us": us(50),
        "p99_us": us(99),
    }));
    Ok(())
}
