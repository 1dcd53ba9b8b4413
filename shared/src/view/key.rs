//! Keys that verify attestations.

use serde::{Deserialize, Serialize};

/// The answer of `GET /keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SigningKeys {
    /// For each purpose, the key that signs now comes first. Older keys verify what they signed.
    pub keys: Vec<SigningKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SigningKey {
    /// sha256 of the public key (SubjectPublicKeyInfo in DER), in lower-case hex.
    pub keyid: String,
    /// `ecdsa-p256-sha256`: signatures are encoded in DER.
    pub algorithm: String,
    /// What it signs. It is not valid for other purposes.
    #[serde(default)]
    pub purpose: KeyPurpose,
    /// Whether new attestations are signed with it.
    pub current: bool,
    /// The public key: a PEM block with the label `PUBLIC KEY`.
    pub pem: String,
}

/// What a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyPurpose {
    /// Evidence of gates.
    #[default]
    Evidence,
    /// Decisions of people.
    Decisions,
    /// Seals of ended runs, and provenance of their artifacts.
    Seals,
}

impl SigningKeys {
    /// The keys of a purpose.
    pub fn of(&self, purpose: KeyPurpose) -> impl Iterator<Item = &SigningKey> {
        self.keys.iter().filter(move |key| key.purpose == purpose)
    }
}
