//! The key that signs tokens (ES256), in a file that only its owner can read.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use shared::signing::{create_private_key, private_key};

pub struct Key {
    pair: EcdsaKeyPair,
    kid: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.kid)
    }
}

impl Key {
    /// The key in a file. Makes one if there is none.
    pub fn ready(file: &Path) -> Result<Self> {
        create_private_key(file).with_context(|| format!("cannot write {}", file.display()))?;
        let found = private_key(file).map_err(|reason| anyhow!("cannot use the key of the issuer: {reason}"))?;
        let pem = found.to_pem().map_err(|error| anyhow!("{}: {error}", file.display()))?;
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let pkcs8 = STANDARD.decode(base64).with_context(|| format!("{} is not PEM", file.display()))?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8);
        let pair = pair.map_err(|error| anyhow!("{}: {error}", file.display()))?;
        let [x, y] = coordinates(&pair);
        // The thumbprint of RFC 7638.
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
        Ok(Self { pair, kid })
    }

    /// The public key as a JWK (RFC 7517).
    pub fn public(&self) -> Value {
        let [x, y] = coordinates(&self.pair);
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "key_ops": ["verify"], "kid": self.kid, "x": x, "y": y })
    }

    /// A JWT with these claims.
    pub fn sign(&self, claims: &Value) -> Result<String> {
        let header = json!({ "alg": "ES256", "kid": self.kid, "typ": "JWT" });
        let [header, claims] = [header.to_string(), claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
        let signed = format!("{header}.{claims}");
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|error| anyhow!("cannot sign a token: {error}"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// `x` and `y` of the public key. It is an uncompressed point: `04`, and 32 bytes of each.
fn coordinates(pair: &EcdsaKeyPair) -> [String; 2] {
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate))
}
