//! Keys that verify attestations.

use serde::{Deserialize, Serialize};

/// The answer of `GET /keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SigningKeys {
    /// The key that signs now comes first. Older keys still verify what they signed.
    pub keys: Vec<SigningKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SigningKey {
    /// sha256 of the public key (SubjectPublicKeyInfo in DER), in lower-case hex.
    pub keyid: String,
    /// `ecdsa-p256-sha256`: signatures are encoded in DER.
    pub algorithm: String,
    /// Whether new attestations are signed with it.
    pub current: bool,
    /// The public key: a PEM block with the label `PUBLIC KEY`.
    pub pem: String,
}
