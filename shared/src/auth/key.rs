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
            return Err("alg does not match kty");
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
mod tests {
    use serde_json::{Value, json};

    use super::super::forge::{FORGE, b64, ec_jwk, ec_sign, rsa_jwk};
    use super::*;

    /// The refusal of the key with these changes. Null removes a member.
    fn refused(mut jwk: Value, changes: &Value) -> Option<&'static str> {
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(jwk.as_object_mut().unwrap().remove(name)),
                value => jwk[name] = value.clone(),
            }
        }
        Key::from_jwk(jwk.as_object().unwrap()).err()
    }

    /// The prime of P-256.
    const P: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ];

    #[test]
    fn a_key_of_the_issuer_counts_with_and_without_its_optional_members() {
        for jwk in [FORGE.ec_jwk(), FORGE.rsa_jwk()] {
            for changes in [
                json!({}),
                json!({"alg": null}),
                json!({"use": null}),
                json!({"key_ops": null}),
                json!({"key_ops": ["sign", "verify"]}),
                json!({"kid": null}),
                json!({"ext": true, "x5t": "abc"}),
            ] {
                assert_eq!(refused(jwk.clone(), &changes), None, "{changes}");
            }
        }
    }

    #[test]
    fn a_key_for_another_purpose_or_with_a_secret_is_refused() {
        for jwk in [FORGE.ec_jwk(), FORGE.rsa_jwk()] {
            for changes in [
                json!({"use": "enc"}),
                json!({"use": "Sig"}),
                json!({"use": ["sig"]}),
                json!({"key_ops": []}),
                json!({"key_ops": ["sign"]}),
                json!({"key_ops": ["encrypt", "Verify"]}),
                json!({"key_ops": "verify"}),
                json!({"alg": "HS256"}),
                json!({"alg": "none"}),
                json!({"alg": "PS256"}),
                json!({"alg": "ES384"}),
                json!({"alg": ["ES256", "RS256"]}),
                json!({"alg": ""}),
                json!({"kid": ""}),
                json!({"kid": 1}),
                json!({"kid": ["ec-1"]}),
                json!({"kid": "k".repeat(256)}),
                json!({"d": "AQ"}),
                json!({"k": b64([0; 32])}),
                json!({"p": "AQ"}),
                json!({"oth": []}),
                json!({"kty": "oct"}),
                json!({"kty": "OKP"}),
                json!({"kty": "ec"}),
                json!({"kty": "rsa"}),
                json!({"kty": null}),
                json!({"kty": 1}),
            ] {
                assert!(refused(jwk.clone(), &changes).is_some(), "{changes}");
            }
        }
        let shared = json!({"kty": "oct", "alg": "HS256", "kid": "x", "k": b64([7; 32])});
        assert_eq!(Key::from_jwk(shared.as_object().unwrap()).err(), Some("the key is secret"));
    }

    #[test]
    fn a_point_that_is_not_on_the_curve_is_refused() {
        let point = FORGE.ec_jwk();
        let x = URL_SAFE_NO_PAD.decode(point["x"].as_str().unwrap()).unwrap();
        let mut next = x.clone();
        next[31] ^= 1;
        // A point of secp256k1: its generator.
        let koblitz_x = "eb5mfvncu6xVoGKVzocLBwKb_NstzijZWfKBWxb4F5g";
        let koblitz_y = "SDradyajxGVdpPv8DhEIqP0XtEimhVQZnEfQj_sQ1Lg";
        for changes in [
            json!({"x": b64([0; 32]), "y": b64([0; 32])}),
            json!({"x": b64([0; 32])}),
            json!({"y": b64([0; 32])}),
            json!({"x": b64(&next)}),
            json!({"x": point["y"], "y": point["x"]}),
            json!({"x": b64(P), "y": b64([0; 32])}),
            json!({"x": b64([0xff; 32]), "y": b64([0xff; 32])}),
            json!({"x": koblitz_x, "y": koblitz_y}),
            json!({"x": b64(&x[1..])}),
            json!({"x": b64([&[0], x.as_slice()].concat())}),
            json!({"x": format!("{}=", point["x"].as_str().unwrap())}),
            json!({"x": ""}),
            json!({"x": null}),
            json!({"y": null}),
            json!({"y": 7}),
            json!({"x": "*".repeat(43)}),
            json!({"crv": "P-384"}),
            json!({"crv": "P-521"}),
            json!({"crv": "secp256k1"}),
            json!({"crv": "p-256"}),
            json!({"crv": null}),
        ] {
            assert!(refused(point.clone(), &changes).is_some(), "{changes}");
        }
    }

    #[test]
    fn a_modulus_or_an_exponent_of_another_size_is_refused() {
        let key = FORGE.rsa_jwk();
        let n = URL_SAFE_NO_PAD.decode(key["n"].as_str().unwrap()).unwrap();
        let of_bytes = |bytes: usize| b64([&[0x80], vec![1; bytes - 1].as_slice()].concat());
        for changes in [
            json!({"e": "AQ"}),
            json!({"e": "Aw"}),
            json!({"e": ""}),
            json!({"e": "AA"}),
            json!({"e": "AAEAAQ"}),
            json!({"e": "AQAB", "n": ""}),
            json!({"e": "AQAC"}),
            json!({"e": b64([0xff; 8])}),
            json!({"e": null}),
            json!({"n": null}),
            json!({"n": of_bytes(64)}),
            json!({"n": of_bytes(128)}),
            json!({"n": of_bytes(255)}),
            json!({"n": of_bytes(513)}),
            json!({"n": of_bytes(1_024)}),
            json!({"n": b64([&[0], n.as_slice()].concat())}),
            json!({"n": b64([&[0x7f], vec![1; 255].as_slice()].concat())}),
            json!({"n": b64([0; 256])}),
            json!({"n": format!("{}==", key["n"].as_str().unwrap())}),
        ] {
            assert!(refused(key.clone(), &changes).is_some(), "{changes}");
        }
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(Key::hs256(&[7; 31]).is_err());
        assert!(Key::hs256(b"").is_err());
        assert!(Key::hs256(&[7; 32]).is_ok());
    }

    #[test]
    fn a_document_is_read_without_the_keys_that_do_not_count() {
        let document = json!({"keys": [
            {"kty": "oct", "kid": "oct", "k": b64([7; 32])},
            ec_jwk(&FORGE.ec, "a"),
            {"kty": "EC", "crv": "P-384", "kid": "p-384", "x": "AA", "y": "AA"},
            "text",
            null,
            rsa_jwk(&FORGE.rsa, "b"),
            {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "short"},
        ], "issuer": "x"});
        let keys = KeySet::parse(&document.to_string()).unwrap();
        assert_eq!(keys.0.len(), 2);
        assert!(keys.get("a").unwrap().verifies(b"m", &ec_sign(&FORGE.ec, b"m")));
        assert!(!keys.get("b").unwrap().verifies(b"m", &ec_sign(&FORGE.ec, b"m")));
        assert!(keys.get("oct").is_none() && keys.get("").is_none() && keys.get("A").is_none());
    }

    #[test]
    fn a_document_that_is_not_what_it_should_be_has_no_keys() {
        let (one, two) = (ec_jwk(&FORGE.ec, "a"), ec_jwk(&FORGE.other_ec, "a"));
        let mut nameless = one.clone();
        nameless.as_object_mut().unwrap().remove("kid");
        let many: Vec<Value> = (0..17).map(|at| ec_jwk(&FORGE.ec, &at.to_string())).collect();
        let secret = json!({"keys": [{"kty": "oct", "kid": "a", "k": b64([7; 32])}]});
        for text in [
            String::new(),
            "<html>502</html>".into(),
            "null".into(),
            "[]".into(),
            "{}".into(),
            json!({"keys": []}).to_string(),
            json!({"keys": {}}).to_string(),
            json!({"keys": null}).to_string(),
            json!({"Keys": [one]}).to_string(),
            json!([one]).to_string(),
            json!({"keys": [[one]]}).to_string(),
            json!({"keys": [nameless]}).to_string(),
            json!({"keys": [one, two]}).to_string(),
            json!({"keys": [one, one]}).to_string(),
            json!({"keys": many}).to_string(),
            secret.to_string(),
            format!("{{\"keys\":[{one}],\"keys\":[{two}]}}"),
            format!("{{\"keys\":[{one}]}} x"),
            format!("{{\"keys\":[{one}]"),
            json!({"keys": [one], "padding": " ".repeat(MAX_DOCUMENT_BYTES)}).to_string(),
            format!("{{\"keys\":{}", "[".repeat(60_000)),
        ] {
            assert!(KeySet::parse(&text).is_err(), "{}", &text[..text.len().min(300)]);
        }
    }
}
