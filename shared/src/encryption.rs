//! Encrypts a text for a reader outside: JWE in its compact form (RFC 7516), with ECDH-ES on P-256 (RFC 7518, section 4.6) and
//! AES-256-GCM. Who encrypts cannot decrypt: the private key stays with the reader.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, ECDH_P256, UnparsedPublicKey};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::signing::{KeyError, PrivateKey, PublicKey};

/// The media type of a JWE (RFC 7515, section 9.2.1).
pub const MEDIA_TYPE: &str = "application/jose";
const ALGORITHM: &str = "ECDH-ES";
const ENCRYPTION: &str = "A256GCM";
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const COORDINATE_BYTES: usize = 32;

/// Why a text cannot be encrypted or decrypted. Contains no part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CryptError(&'static str);

impl From<KeyError> for CryptError {
    fn from(_: KeyError) -> Self {
        Self("it is not a private P-256 key (PKCS#8 without a password)")
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    enc: String,
    epk: Ephemeral,
}

#[derive(Deserialize)]
struct Ephemeral {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

/// Encrypts for the owner of this key, whose id (`kid`) is in the header.
pub fn encrypt(reader: &PublicKey, text: &[u8]) -> Result<String, CryptError> {
    let failed = |_| CryptError("the text cannot be encrypted");
    let ephemeral = agreement::PrivateKey::generate(&ECDH_P256).map_err(failed)?;
    let point = ephemeral.compute_public_key().map_err(failed)?;
    let (x, y) = point.as_ref()[1..].split_at(COORDINATE_BYTES);
    let header = json!({
        "alg": ALGORITHM, "enc": ENCRYPTION, "kid": reader.keyid(),
        "epk": { "kty": "EC", "crv": "P-256", "x": BASE64URL.encode(x), "y": BASE64URL.encode(y) },
    });
    let header = BASE64URL.encode(header.to_string());
    let key = agreed_key(&ephemeral, reader.point())?;
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).map_err(failed)?;
    let mut sealed = text.to_vec();
    let tag =
        key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header.as_bytes()), &mut sealed);
    let tag = BASE64URL.encode(tag.map_err(failed)?.as_ref());
    // The second part is empty: the key is agreed, not sent.
    Ok([&header, "", &BASE64URL.encode(nonce), &BASE64URL.encode(&sealed), &tag].join("."))
}

/// Decrypts with the private key.
pub fn decrypt(key: &PrivateKey, jwe: &str) -> Result<Vec<u8>, CryptError> {
    const SHAPE: CryptError = CryptError("it is not a JWE with ECDH-ES on P-256 and A256GCM");
    let parts: Vec<&str> = jwe.trim().split('.').collect();
    let [head, "", nonce, sealed, tag] = parts[..] else { return Err(SHAPE) };
    let bytes = |part: &str| BASE64URL.decode(part).map_err(|_| SHAPE);
    let header: Header = serde_json::from_slice(&bytes(head)?).map_err(|_| SHAPE)?;
    let Ephemeral { kty, crv, x, y } = &header.epk;
    if [header.alg.as_str(), header.enc.as_str(), kty, crv] != [ALGORITHM, ENCRYPTION, "EC", "P-256"] {
        return Err(SHAPE);
    }
    let (x, y, nonce, tag) = (bytes(x)?, bytes(y)?, bytes(nonce)?, bytes(tag)?);
    if x.len() != COORDINATE_BYTES || y.len() != COORDINATE_BYTES || tag.len() != TAG_BYTES {
        return Err(SHAPE);
    }
    let pkcs8 = key.to_pkcs8()?;
    let own = agreement::PrivateKey::from_private_key_der(&ECDH_P256, &pkcs8).map_err(|_| SHAPE)?;
    let agreed = agreed_key(&own, &[&[4], x.as_slice(), &y].concat())?;
    let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| SHAPE)?;
    let mut text = [bytes(sealed)?, tag].concat();
    let opened = agreed.open_in_place(nonce, Aad::from(head.as_bytes()), &mut text);
    let length = opened.map_err(|_| CryptError("it was encrypted for another key, or changed"))?.len();
    text.truncate(length);
    Ok(text)
}

fn agreed_key(own: &agreement::PrivateKey, point: &[u8]) -> Result<LessSafeKey, CryptError> {
    const FAILED: CryptError = CryptError("the keys do not agree");
    let key = agreement::agree(own, UnparsedPublicKey::new(&ECDH_P256, point), FAILED, |secret| {
        Ok(concat_kdf(secret, ENCRYPTION, b"", b"", KEY_BYTES))
    })?;
    UnboundKey::new(&AES_256_GCM, &key).map(LessSafeKey::new).map_err(|_| FAILED)
}

/// The key that follows from an agreed secret (RFC 7518, section 4.6.2). Of at most 32 bytes.
fn concat_kdf(secret: &[u8], algorithm: &str, party_u: &[u8], party_v: &[u8], bytes: usize) -> Vec<u8> {
    let mut digest = Sha256::new();
    digest.update(1_u32.to_be_bytes());
    digest.update(secret);
    for part in [algorithm.as_bytes(), party_u, party_v] {
        digest.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        digest.update(part);
    }
    digest.update(u32::try_from(bytes * 8).unwrap_or(u32::MAX).to_be_bytes());
    digest.finalize()[..bytes].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7518, appendix C.
    #[test]
    fn the_key_is_derived_as_the_standard_says() {
        let secret = [
            158, 86, 217, 29, 129, 113, 53, 211, 114, 131, 66, 131, 191, 132, 38, 156, 251, 49, 110, 163, 218, 128,
            106, 72, 246, 218, 167, 121, 140, 254, 144, 196,
        ];
        let key = concat_kdf(&secret, "A128GCM", b"Alice", b"Bob", 16);
        assert_eq!(BASE64URL.encode(key), "VqqN6vgjbSBcIijNcacQGg");
    }

    #[test]
    fn only_the_owner_of_the_key_reads_the_text_and_a_changed_character_is_noticed() {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let text = "a prompt, and its answer: \u{1f600}".as_bytes();
        let jwe = encrypt(key.public(), text).unwrap();
        assert_ne!(jwe, encrypt(key.public(), text).unwrap(), "each has a key of its own");
        assert_eq!(decrypt(&key, &jwe).unwrap(), text);
        assert_eq!(decrypt(&PrivateKey::from_pem(&key.to_pem().unwrap()).unwrap(), &jwe).unwrap(), text);
        assert!(decrypt(&other, &jwe).is_err());
        assert!(jwe.split('.').all(|part| !part.contains("prompt")));
        for at in 0..jwe.len() {
            let mut changed = jwe.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(decrypt(&key, str::from_utf8(&changed).unwrap()).is_err(), "character {at}");
        }
        for broken in ["", "....", "a.b.c", &jwe[1..], &format!("{jwe}.x")] {
            assert!(decrypt(&key, broken).is_err(), "{broken}");
        }
        assert_eq!(decrypt(&key, &encrypt(key.public(), b"").unwrap()).unwrap(), b"");
    }
}
