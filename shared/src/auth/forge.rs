//! Makes tokens for tests, good and bad ones.

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_SHA256, RsaEncoding,
    RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The time of all tests, in seconds since 1970.
pub const NOW: i64 = 1_800_000_000;
pub const ISSUER: &str = "https://abc.supabase.co/auth/v1";
pub const SECRET: &str = "super-secret-jwt-token-with-at-least-32-characters-long";
pub const SUBJECT: &str = "8d6a6a5c-6a2f-4c0e-9a36-1f7fb4a7a1f0";

/// The issuer of the tests.
pub static FORGE: LazyLock<Forge> = LazyLock::new(Forge::new);

pub struct Forge {
    pub ec: EcdsaKeyPair,
    /// Of somebody else.
    pub other_ec: EcdsaKeyPair,
    pub rsa: RsaKeyPair,
    pub other_rsa: RsaKeyPair,
}

/// What signs a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alg {
    Es256,
    Rs256,
    Hs256,
}

pub const ALGS: [Alg; 3] = [Alg::Es256, Alg::Rs256, Alg::Hs256];

impl Alg {
    /// The header that the issuer writes.
    pub fn header(self) -> Value {
        match self {
            Self::Es256 => json!({"alg": "ES256", "kid": "ec-1", "typ": "JWT"}),
            Self::Rs256 => json!({"alg": "RS256", "kid": "rsa-1", "typ": "JWT"}),
            Self::Hs256 => json!({"alg": "HS256", "typ": "JWT"}),
        }
    }
}

impl Forge {
    fn new() -> Self {
        let ec = || ec_pair(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let rsa = || RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        Self { ec: ec(), other_ec: ec(), rsa: rsa(), other_rsa: rsa() }
    }

    pub fn ec_jwk(&self) -> Value {
        ec_jwk(&self.ec, "ec-1")
    }

    pub fn rsa_jwk(&self) -> Value {
        rsa_jwk(&self.rsa, "rsa-1")
    }

    pub fn jwks(&self) -> Value {
        json!({"keys": [self.ec_jwk(), self.rsa_jwk()]})
    }

    /// A signature of the issuer.
    pub fn signature(&self, alg: Alg, signed: &[u8]) -> Vec<u8> {
        match alg {
            Alg::Es256 => ec_sign(&self.ec, signed),
            Alg::Rs256 => rsa_sign(&self.rsa, &RSA_PKCS1_SHA256, signed),
            Alg::Hs256 => hs_sign(SECRET.as_bytes(), signed),
        }
    }

    /// A token of these texts, signed by the issuer.
    pub fn raw(&self, alg: Alg, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        sealed(header, payload, |signed| self.signature(alg, signed))
    }

    /// A token with these claims and the usual header.
    pub fn token(&self, alg: Alg, claims: &Value) -> String {
        self.raw(alg, alg.header().to_string(), claims.to_string())
    }

    /// A token with these headers and the usual claims.
    pub fn with_header(&self, alg: Alg, header: &Value) -> String {
        self.raw(alg, header.to_string(), claims().to_string())
    }
}

pub fn ec_pair(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    EcdsaKeyPair::generate(algorithm).unwrap()
}

pub fn ec_sign(pair: &EcdsaKeyPair, signed: &[u8]) -> Vec<u8> {
    pair.sign(&SystemRandom::new(), signed).unwrap().as_ref().to_vec()
}

pub fn rsa_sign(pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding, signed: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), signed, &mut signature).unwrap();
    signature
}

pub fn hs_sign(secret: &[u8], signed: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed).as_ref().to_vec()
}

pub fn ec_jwk(pair: &EcdsaKeyPair, kid: &str) -> Value {
    let point = pair.public_key().as_ref();
    json!({
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "key_ops": ["verify"], "kid": kid,
        "x": b64(&point[1..33]), "y": b64(&point[33..65]),
    })
}

/// The modulus of a key of 2048 bits.
pub fn rsa_modulus(pair: &RsaKeyPair) -> Vec<u8> {
    // RSAPublicKey in DER: the header of the sequence, the header of n, a zero, n, and e.
    let der = pair.public_key().as_ref();
    assert_eq!((&der[4..9], &der[265..]), (&[2, 0x82, 1, 1, 0][..], &[2, 3, 1, 0, 1][..]));
    der[9..265].to_vec()
}

pub fn rsa_jwk(pair: &RsaKeyPair, kid: &str) -> Value {
    json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": b64(rsa_modulus(pair)), "e": "AQAB"})
}

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of these texts with a signature of the caller.
pub fn sealed(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", b64(header), b64(payload));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", b64(signature))
}

/// The claims of Supabase's tokens for people.
pub fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "authenticated", "exp": NOW + 3_600, "iat": NOW - 60, "sub": SUBJECT,
        "role": "authenticated", "email": "ann@acme.test", "phone": "", "aal": "aal1", "is_anonymous": false,
        "session_id": "2f1f0a3c-6a52-4f43-8f0c-0d6f5f7f1b11",
        "amr": [{"method": "password", "timestamp": NOW - 60}],
        "app_metadata": {"provider": "email", "providers": ["email"], "tenant_id": "acme"},
        "user_metadata": {"name": "Ann", "height_m": 1.68},
    })
}

/// The usual claims with this one.
pub fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

/// The usual claims without this one.
pub fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name).unwrap();
    claims
}
