//! ECDSA keys on the curve P-256. Signatures are over sha256 and encoded in DER, as KMS and the tools for attestations
//! expect.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::low_s;
use crate::domain::digest::sha256_hex;

/// The name of the only algorithm.
pub const ALGORITHM: &str = "ecdsa-p256-sha256";

/// What comes before the point in the SubjectPublicKeyInfo of every P-256 key (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point: 4, x, y.
const POINT_BYTES: usize = 65;
/// A base64 line of a PEM file.
const LINE_CHARS: usize = 64;

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(&'static str);

/// A key that verifies signatures.
#[derive(Clone)]
pub struct PublicKey {
    spki: Vec<u8>,
    parsed: ParsedPublicKey,
    keyid: String,
}

impl PublicKey {
    /// From a SubjectPublicKeyInfo in DER. The point must be uncompressed, so that a key has one encoding and one id.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let point =
            spki.strip_prefix(&SPKI_PREFIX).filter(|point| point.len() == POINT_BYTES && point.starts_with(&[4]));
        let point =
            point.ok_or(KeyError("it is not the public key of a P-256 key, in DER with an uncompressed point"))?;
        let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .map_err(|_| KeyError("its point is not on the curve P-256"))?;
        Ok(Self { spki: spki.to_vec(), parsed, keyid: sha256_hex(spki) })
    }

    /// From one `PUBLIC KEY` block.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        match <[Self; 1]>::try_from(Self::all_from_pem(text)?) {
            Ok([key]) => Ok(key),
            Err(_) => Err(KeyError("expected one PEM block with the label PUBLIC KEY")),
        }
    }

    /// From any number of `PUBLIC KEY` blocks. White space inside the blocks is ignored, so they may be on one line.
    pub fn all_from_pem(text: &str) -> Result<Vec<Self>, KeyError> {
        blocks(text, "PUBLIC KEY")?.iter().map(|der| Self::from_spki(der)).collect()
    }

    /// One `PUBLIC KEY` block.
    pub fn to_pem(&self) -> String {
        block("PUBLIC KEY", &self.spki)
    }

    /// The point, uncompressed: 4, x, y.
    pub fn point(&self) -> &[u8] {
        &self.spki[SPKI_PREFIX.len()..]
    }

    /// sha256 of the SubjectPublicKeyInfo in DER, in lower-case hex.
    pub fn keyid(&self) -> &str {
        &self.keyid
    }

    /// Whether this key made the signature (DER) of the message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.keyid)
    }
}

/// A private key in memory. It does not implement `Debug`, so that it is never logged.
pub struct PrivateKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl PrivateKey {
    /// A new key.
    pub fn generate() -> Result<Self, KeyError> {
        let failed = |_| KeyError("no key can be generated");
        Self::from_pair(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?)
    }

    /// From one `PRIVATE KEY` block, which is PKCS#8 without a password.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let blocks = blocks(text, "PRIVATE KEY")?;
        let [pkcs8] = blocks.as_slice() else {
            return Err(KeyError("expected one PEM block with the label PRIVATE KEY (PKCS#8 without a password)"));
        };
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
            .map_err(|_| KeyError("it is not a P-256 key"))?;
        Self::from_pair(pair)
    }

    fn from_pair(pair: EcdsaKeyPair) -> Result<Self, KeyError> {
        let public = PublicKey::from_spki(&[SPKI_PREFIX.as_slice(), pair.public_key().as_ref()].concat())?;
        Ok(Self { pair, public })
    }

    /// One `PRIVATE KEY` block.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        Ok(block("PRIVATE KEY", &self.to_pkcs8()?))
    }

    /// As PKCS#8 in DER.
    pub fn to_pkcs8(&self) -> Result<Vec<u8>, KeyError> {
        let pkcs8 = self.pair.to_pkcs8v1().map_err(|_| KeyError("the key cannot be encoded"))?;
        Ok(pkcs8.as_ref().to_vec())
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The signature of the message, in DER, with the lower of its two values of s ([`low_s`]).
    ///
    /// Its length is a multiple of three bytes, which one of 256 such signatures has. Then its base64 has no padding, and no
    /// bits that lenient decoders ignore: a change of any character changes the signature for every verifier.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        const TRIES: usize = 16_384;
        let (failed, random) = (KeyError("the signature failed"), SystemRandom::new());
        for _ in 0..TRIES {
            let signature = self.pair.sign(&random, message).map_err(|_| failed.clone())?;
            let signature = low_s::lowered(signature.as_ref()).ok_or_else(|| failed.clone())?;
            if signature.len().is_multiple_of(3) {
                return Ok(signature);
            }
        }
        Err(failed)
    }
}

/// The bytes of all blocks with this label. Text outside of blocks is ignored, as in every PEM reader.
fn blocks(text: &str, label: &str) -> Result<Vec<Vec<u8>>, KeyError> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut found = Vec::new();
    for after in text.split(&begin).skip(1) {
        let (body, _) = after.split_once(&end).ok_or(KeyError("a PEM block has no end"))?;
        let body: String = body.split_ascii_whitespace().collect();
        found.push(STANDARD.decode(body).map_err(|_| KeyError("a PEM block is not base64"))?);
    }
    Ok(found)
}

fn block(label: &str, der: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = format!("-----BEGIN {label}-----\n");
    for (index, character) in STANDARD.encode(der).chars().enumerate() {
        if index > 0 && index.is_multiple_of(LINE_CHARS) {
            text.push('\n');
        }
        text.push(character);
    }
    // Writing to a String cannot fail.
    let _ = write!(text, "\n-----END {label}-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The public key of one made with `openssl ecparam -name prime256v1 -genkey`.
    const OPENSSL_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEsJt7uvktL/Lqf21hRVtTjgSOwqQG\naGgi1a1d/05fArVOmYvse6GPyULbSUAKenpcXSm1fSsMEb3iII7hR9MNRA==\n-----END PUBLIC KEY-----\n";

    #[test]
    fn a_public_key_is_read_and_written_as_openssl_does() {
        let key = PublicKey::from_pem(OPENSSL_PUBLIC).unwrap();
        assert_eq!(key.to_pem(), OPENSSL_PUBLIC);
        // `openssl pkey -pubin -outform der | sha256sum`
        assert_eq!(key.keyid(), "f3ef206436e7727f5cb87bc9d4556eac0e1e4a88b209582e92a26258df0a9f32");
    }

    #[test]
    fn a_written_private_key_is_read_again() {
        let key = PrivateKey::generate().unwrap();
        assert_eq!(PrivateKey::from_pem(&key.to_pem().unwrap()).unwrap().public(), key.public());
    }

    #[test]
    fn a_signature_verifies_with_its_key_and_message_only() {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let signature = key.sign(b"message").unwrap();
        assert!(key.public().verifies(b"message", &signature));
        assert!(!key.public().verifies(b"massage", &signature));
        assert!(!other.public().verifies(b"message", &signature));
        for index in 0..signature.len() {
            let mut changed = signature.clone();
            changed[index] ^= 1;
            assert!(!key.public().verifies(b"message", &changed), "byte {index}");
        }
    }

    /// DER has one encoding of a signature. Other encodings of the same numbers are refused, and so are bytes around it.
    #[test]
    fn another_encoding_of_a_signature_is_refused() {
        let key = PrivateKey::generate().unwrap();
        let der = key.sign(b"message").unwrap();
        // SEQUENCE, length, INTEGER, length of r, r, INTEGER, length of s, s.
        let (length, r_length) = (der[1], der[3]);
        let r = &der[4..4 + usize::from(r_length)];
        let rest = &der[4 + usize::from(r_length)..];
        let long_length = [&[0x30, 0x81, length], &der[2..]].concat();
        let padded = [&[0x30, length + 1, 0x02, r_length + 1, 0], r, rest].concat();
        let indefinite = [&[0x30, 0x80], &der[2..], &[0, 0]].concat();
        let after = [der.as_slice(), &[0]].concat();
        let before = [&[0], der.as_slice()].concat();
        let zeros = vec![0x30, 6, 2, 1, 0, 2, 1, 0];
        for other in [long_length, padded, indefinite, after, before, zeros, Vec::new(), der[..der.len() - 1].to_vec()]
        {
            assert!(!key.public().verifies(b"message", &other), "{other:02x?}");
        }
        let again = [&[0x30, length, 0x02, r_length], r, rest].concat();
        assert!(key.public().verifies(b"message", &again));
    }

    #[test]
    fn the_base64_of_a_signature_has_no_unused_bits() {
        let key = PrivateKey::generate().unwrap();
        for message in 0..50_u8 {
            assert!(!STANDARD.encode(key.sign(&[message]).unwrap()).contains('='));
        }
    }

    #[test]
    fn several_public_keys_may_stand_on_one_line() {
        let keys = [PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap()];
        let text: String = keys.iter().map(|key| key.public().to_pem().replace('\n', " ")).collect();
        let read = PublicKey::all_from_pem(&text).unwrap();
        assert_eq!(read.iter().collect::<Vec<_>>(), keys.iter().map(PrivateKey::public).collect::<Vec<_>>());
        assert_eq!(PublicKey::all_from_pem("").unwrap(), []);
        assert!(PublicKey::from_pem(&text).is_err(), "two keys are not one");
    }

    #[test]
    fn other_encodings_curves_and_labels_are_refused() {
        let key = PrivateKey::generate().unwrap();
        let spki = key.public().spki.clone();
        for index in 0..=SPKI_PREFIX.len() {
            let mut changed = spki.clone();
            changed[index] ^= 1;
            assert!(PublicKey::from_spki(&changed).is_err(), "byte {index}");
        }
        let mut outside = spki.clone();
        outside[90] ^= 1;
        assert!(PublicKey::from_spki(&outside).is_err(), "a point outside of the curve");
        assert!(PublicKey::from_spki(&[spki.as_slice(), &[0]].concat()).is_err(), "a byte too many");
        assert!(PublicKey::from_spki(&spki[..90]).is_err(), "a byte too few");
        assert!(PublicKey::from_pem(&key.to_pem().unwrap()).is_err());
        assert!(PrivateKey::from_pem(&key.public().to_pem()).is_err());
        assert!(PublicKey::from_pem("-----BEGIN PUBLIC KEY-----\nMFkw").is_err());
    }
}
