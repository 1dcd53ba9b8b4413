//! DSSE envelopes: a payload with its type and signatures over both.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};
use shared::error::Error;
use shared::signing::dsse::pre_authentication;
use shared::signing::{PublicKey, Signed, Signer, low_s};

use super::statement::Statement;
use super::{AttestationError, json};

pub use shared::signing::dsse::PAYLOAD_TYPE;
/// A larger envelope is refused unread.
pub const MAX_ENVELOPE_BYTES: usize = 8 * 1024 * 1024;
/// The limit on signatures of an envelope. Each costs a verification.
const MAX_SIGNATURES: usize = 32;

/// A payload and its signatures. The payload can be read only after [`Envelope::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    /// Empty if the signer did not say.
    keyid: String,
    /// In DER.
    signature: Vec<u8>,
}

/// The JSON of an envelope. Unknown fields are ignored, as DSSE demands.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    payload_type: String,
    payload: String,
    #[serde(deserialize_with = "json::objects")]
    signatures: Vec<SignatureDocument>,
}

#[derive(Serialize, Deserialize)]
struct SignatureDocument {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
    sig: String,
}

/// A payload that trusted keys signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub payload_type: String,
    pub payload: Vec<u8>,
    /// The ids of the keys that signed it.
    pub keyids: BTreeSet<String>,
}

/// Signs an in-toto statement.
pub async fn sign(payload: Vec<u8>, signer: &Signer) -> Result<Envelope, Error> {
    let unsigned = Envelope { payload_type: PAYLOAD_TYPE.to_owned(), payload, signatures: Vec::new() };
    unsigned.countersign(signer).await
}

impl Envelope {
    /// The same payload with the signature of another signer as well.
    pub async fn countersign(mut self, signer: &Signer) -> Result<Self, Error> {
        let Signed { keyid, signature } = signer.sign(&pre_authentication(&self.payload_type, &self.payload)).await?;
        self.signatures.push(Signature { keyid, signature });
        Ok(self)
    }

    /// The ids of the keys that are said to have signed it.
    pub fn keyids(&self) -> Vec<&str> {
        self.signatures.iter().map(|signature| signature.keyid.as_str()).collect()
    }

    /// Whether every signature is the lower one of the two that its key can make of it ([`low_s`]).
    pub fn has_low_s(&self) -> bool {
        self.signatures.iter().all(|signature| low_s::is_low(&signature.signature))
    }

    /// The envelope as JSON on one line, without white space that could change unnoticed.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let signatures = self.signatures.iter().map(|signature| SignatureDocument {
            keyid: signature.keyid.clone(),
            sig: STANDARD.encode(&signature.signature),
        });
        serde_json::to_vec(&Document {
            payload_type: self.payload_type.clone(),
            payload: STANDARD.encode(&self.payload),
            signatures: signatures.collect(),
        })
    }

    /// Reads an envelope. Nothing in it is to be believed before [`Envelope::verify`].
    pub fn read(bytes: &[u8]) -> Result<Self, AttestationError> {
        let malformed = AttestationError::Envelope;
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(malformed(format!("it has more than {MAX_ENVELOPE_BYTES} bytes")));
        }
        let document: Document = json::read(bytes).map_err(malformed)?;
        if document.signatures.is_empty() || document.signatures.len() > MAX_SIGNATURES {
            return Err(malformed(format!("it must have 1 to {MAX_SIGNATURES} signatures")));
        }
        let signatures = document
            .signatures
            .into_iter()
            .map(|signature| Ok(Signature { keyid: signature.keyid, signature: decode("sig", &signature.sig)? }));
        Ok(Self {
            payload: decode("payload", &document.payload)?,
            signatures: signatures.collect::<Result<_, _>>()?,
            payload_type: document.payload_type,
        })
    }

    /// Accepts the payload if at least `threshold` of these keys signed it. A key counts once, however often it signed
    /// and however often it is given.
    ///
    /// A signature with a key id is tried with the key of that id only, one without an id with every key. The id itself is
    /// not signed, so it proves nothing.
    pub fn verify(self, keys: &[PublicKey], threshold: usize) -> Result<Verified, AttestationError> {
        let message = pre_authentication(&self.payload_type, &self.payload);
        let mut keyids = BTreeSet::new();
        for signature in &self.signatures {
            let candidates = keys.iter().filter(|key| signature.keyid.is_empty() || signature.keyid == key.keyid());
            let signers = candidates.filter(|key| key.verifies(&message, &signature.signature));
            keyids.extend(signers.map(|key| key.keyid().to_owned()));
        }
        let needed = threshold.max(1);
        if keyids.len() < needed {
            let named = self.signatures.into_iter().map(|signature| signature.keyid).collect();
            let given = keys.iter().map(|key| key.keyid().to_owned()).collect();
            return Err(AttestationError::Unverified { valid: keyids.len(), needed, named, given });
        }
        Ok(Verified { payload_type: self.payload_type, payload: self.payload, keyids })
    }
}

impl Verified {
    /// The in-toto statement in the payload.
    pub fn statement(&self) -> Result<Statement, AttestationError> {
        if self.payload_type != PAYLOAD_TYPE {
            return Err(AttestationError::Statement(format!(
                "its type is {:?}, not {PAYLOAD_TYPE}",
                self.payload_type
            )));
        }
        Statement::read(&self.payload)
    }
}

/// Reads base64 with either alphabet, as DSSE demands. Mixed alphabets, missing padding and bits that are not used are
/// refused.
fn decode(field: &str, text: &str) -> Result<Vec<u8>, AttestationError> {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine.decode(text).map_err(|error| AttestationError::Envelope(format!("{field} is not base64: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pre_authentication_encoding_is_that_of_the_specification() {
        let example = pre_authentication("http://example.com/HelloWorld", b"hello world");
        assert_eq!(example, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        assert_eq!(pre_authentication("", b""), b"DSSEv1 0  0 ");
        assert_eq!(pre_authentication("é", b"\0"), "DSSEv1 2 é 1 \0".as_bytes());
    }

    #[test]
    fn base64_has_one_spelling_in_each_alphabet() {
        assert_eq!(decode("f", "-_8=").unwrap(), decode("f", "+/8=").unwrap());
        for text in ["-/8=", "+_8=", "+/8", "+/9=", "+/8=\n", " +/8=", "+/8==", "+/"] {
            assert!(decode("f", text).is_err(), "{text:?}");
        }
    }
}
