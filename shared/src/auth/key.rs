//! Keys that verify tokens. Each has one algorithm, so that a token cannot choose another (RFC 8725, section 3.1).

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::domain::json::strict_object;

/// The size of a document of keys, and the number of its keys.
pub const MAX_DOCUMENT_BYTES: usize = 64 * 1024;
const MAX_KEYS: usize = 16;
const MAX_DEPTH: usize = 8;
const MAX_KID_BYTES: usize = 255;
/// A coordinate of P-256.
const COORDINATE_BYTES: usize = 32;
/// 2048 to 4096 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;
/// The only exponent: 65537.
const EXPONENT: [u8; 3] = [1, 0, 1];
const MIN_SECRET_BYTES: usize = 32;

/// The algorithms of JSON web signatures that count here (RFC 7518, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Es256,
    Rs256,
    Hs256,
}

impl Algorithm {
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "ES256" => Some(Self::Es256),
            "RS256" => Some(Self::Rs256),
            "HS256" => Some(Self::Hs256),
            _ => None,
        }
    }
}

/// A key, parsed once.
pub struct Key {
    algorithm: Algorithm,
    kid: Option<String>,
    material: Material,
}

enum Material {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl Key {
    /// A shared secret of at least 32 bytes. It verifies HS256.
    pub fn hs256(secret: &[u8]) -> Result<Self, &'static str> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err("has fewer than 32 bytes");
        }
        let material = Material::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret)));
        Ok(Self { algorithm: Algorithm::Hs256, kid: None, material })
    }

    /// A public key (RFC 7517): P-256, or RSA of 2048 to 4096 bits with the exponent 65537. A key that is private, shared,
    /// of another algorithm or for another use is refused.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, &'static str> {
        if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|secret| jwk.contains_key(*secret)) {
            return Err("the key is secret");
        }
        let kid = match jwk.get("kid") {
            None => None,
            Some(Value::String(kid)) if (1..=MAX_KID_BYTES).contains(&kid.len()) => Some(kid.clone()),
            Some(_) => return Err("kid is not a text of 1 to 255 bytes"),
        };
        if jwk.get("use").is_some_and(|usage| usage != "sig") {
            return Err("use is not sig");
        }
        let verifies = |ops: &Value| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
        if jwk.get("key_ops").is_some_and(|ops| !verifies(ops)) {
            return Err("key_ops has no verify");
        }
        let (algorithm, name, public) = match jwk.get("kty").and_then(Value::as_str) {
            Some("EC") => (Algorithm::Es256, "ES256", p256(jwk)?),
            Some("RSA") => (Algorithm::Rs256, "RS256", rsa(jwk)?),
            _ => return Err("kty is neither EC nor RSA"),
        };
        if jwk.get("alg").is_some_and(|alg| alg != name) {
            return Err("alg is another one");
        }
        Ok(Self { algorithm, kid, material: Material::Public(public) })
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key's id, if its document has one.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether this key made the signature of the message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Public(key) => key.verify_sig(message, signature).is_ok(),
            // In constant time.
            Material::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}

fn p256(jwk: &Map<String, Value>) -> Result<ParsedPublicKey, &'static str> {
    if jwk.get("crv").and_then(Value::as_str) != Some("P-256") {
        return Err("crv is not P-256");
    }
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if (x.len(), y.len()) != (COORDINATE_BYTES, COORDINATE_BYTES) {
        return Err("x and y do not have 32 bytes each");
    }
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    // The signature is r and s of 32 bytes each (RFC 7518, section 3.4), not DER as in evidence.
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| "the point is not on P-256")
}

fn rsa(jwk: &Map<String, Value>) -> Result<ParsedPublicKey, &'static str> {
    let (n, e) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    // A leading zero is another text for the same number (RFC 7518, section 2). A small first byte is a shorter modulus.
    if !MODULUS_BYTES.contains(&n.len()) || n.first().is_none_or(|first| *first < 0x80) {
        return Err("n does not have 2048 to 4096 bits in whole bytes");
    }
    if e != EXPONENT {
        return Err("e is not 65537");
    }
    PublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).map_err(|_| "n and e are no RSA key")
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, &'static str> {
    let text = jwk.get(name).and_then(Value::as_str).ok_or("a part of the key is missing")?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "a part of the key is not base64url")
}

/// The usable keys of a document (RFC 7517, section 5), by their ids.
#[derive(Clone)]
pub struct KeySet(HashMap<String, Arc<Key>>);

impl KeySet {
    /// Reads a document. Keys that cannot be used, and those without an id, are left out. `Err` if none remains, if two of
    /// them have the same id, or if the document is not what it should be: then nothing in it counts.
    pub fn parse(document: &str) -> Result<Self, &'static str> {
        if document.len() > MAX_DOCUMENT_BYTES {
            return Err("the document has more than 64 KiB");
        }
        let object = strict_object(document.as_bytes(), MAX_DEPTH)?;
        let listed = object.get("keys").and_then(Value::as_array).ok_or("the document has no keys")?;
        if listed.len() > MAX_KEYS {
            return Err("the document has more than 16 keys");
        }
        let usable = listed.iter().filter_map(|key| Key::from_jwk(key.as_object()?).ok());
        let mut keys = HashMap::new();
        for key in usable {
            let Some(kid) = key.kid.clone() else { continue };
            if keys.insert(kid, Arc::new(key)).is_some() {
                return Err("two keys have the same id");
            }
        }
        if keys.is_empty() { Err("the document has no usable key") } else { Ok(Self(keys)) }
    }

    pub fn get(&self, kid: &str) -> Option<&Arc<Key>> {
        self.0.get(kid)
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
