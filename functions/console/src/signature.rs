//! Checks the attestation of a gate, as `nofx verify` does.

use nofx_gates::attestation::{Envelope, TestVerdict};
use shared::signing::PublicKey;

/// What an attestation is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// A key of this system signed it, and it names this evidence.
    Valid(Signed),
    /// It proves nothing, for this reason.
    Wrong(String),
    /// Nobody knows, for this reason.
    Unchecked(String),
    /// The evidence has no attestation.
    Missing,
}

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub keyids: Vec<String>,
    /// `PASSED`, `WARNED` or `FAILED`.
    pub result: &'static str,
    /// The statement, as JSON.
    pub statement: String,
}

/// Verifies an envelope with these keys. `evidence` is the digest of the evidence that it must name.
pub fn check(envelope: &[u8], keys: &[PublicKey], evidence: Option<&str>) -> Signature {
    if keys.is_empty() {
        return Signature::Unchecked("no public key is configured".into());
    }
    match verify(envelope, keys, evidence) {
        Ok(signed) => Signature::Valid(signed),
        Err(why) => Signature::Wrong(why),
    }
}

fn verify(envelope: &[u8], keys: &[PublicKey], evidence: Option<&str>) -> Result<Signed, String> {
    let verified =
        Envelope::read(envelope).and_then(|envelope| envelope.verify(keys, 1)).map_err(|error| error.to_string())?;
    let result =
        verified.statement().and_then(|statement| statement.test_result()).map_err(|error| error.to_string())?;
    if evidence.is_some() && result.evidence_sha256() != evidence {
        return Err("it is about other evidence".into());
    }
    Ok(Signed {
        result: match result.result {
            TestVerdict::Passed => "PASSED",
            TestVerdict::Warned => "WARNED",
            TestVerdict::Failed => "FAILED",
        },
        statement: String::from_utf8_lossy(&verified.payload).into_owned(),
        keyids: verified.keyids.into_iter().collect(),
    })
}
