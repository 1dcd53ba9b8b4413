//! Public keys that somebody keeps in a file, each for what it signs.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use shared::signing::PublicKey;
use shared::view::{KeyPurpose, SigningKey};

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

const PURPOSES: [KeyPurpose; 3] = [KeyPurpose::Evidence, KeyPurpose::Decisions, KeyPurpose::Seals];

/// Keys. One whose file does not say its purpose counts for every purpose.
pub struct Keyring(Vec<(PublicKey, Option<KeyPurpose>)>);

fn word(purpose: KeyPurpose) -> &'static str {
    match purpose {
        KeyPurpose::Evidence => "evidence",
        KeyPurpose::Decisions => "decisions",
        KeyPurpose::Seals => "seals",
    }
}

/// The line before a key that says what it signs. PEM readers ignore text outside of blocks.
pub fn purpose_line(purpose: KeyPurpose) -> String {
    format!("# {}", word(purpose))
}

/// Public keys as PEM, each after a line with its purpose.
pub fn pem(keys: &[SigningKey]) -> String {
    let lines = keys.iter().flat_map(|key| [purpose_line(key.purpose), key.pem.trim_end().to_owned(), String::new()]);
    lines.collect::<Vec<_>>().join("\n")
}

impl Keyring {
    /// Reads PEM blocks, each after a line with its purpose, or without one.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let keys = Self::of(&text).with_context(|| format!("{} has no usable keys", file.display()))?;
        ensure!(!keys.0.is_empty(), "{} has no public keys", file.display());
        Ok(keys)
    }

    pub fn of(text: &str) -> Result<Self> {
        let mut keys = Vec::new();
        let mut parts = text.split(BEGIN);
        let mut before = parts.next().unwrap_or_default();
        for part in parts {
            let key = PublicKey::from_pem(&format!("{BEGIN}{part}"))?;
            let said = before.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
            let purpose = PURPOSES.into_iter().find(|purpose| said == purpose_line(*purpose));
            // A key whose purpose is misspelled must not count for every purpose.
            ensure!(
                purpose.is_some() || !said.starts_with('#'),
                "the line {said:?} before a key names no purpose; {}",
                PURPOSES.map(|purpose| format!("{:?}", purpose_line(purpose))).join(", ") + " do"
            );
            keys.push((key, purpose));
            before = part.split_once(END).map_or("", |(_, after)| after);
        }
        Ok(Self(keys))
    }

    /// The keys of a purpose.
    pub fn keys(&self, purpose: KeyPurpose) -> Vec<PublicKey> {
        let fits = self.0.iter().filter(|(_, of)| of.is_none_or(|of| of == purpose));
        fits.map(|(key, _)| key.clone()).collect()
    }

    /// Whether the file says the purpose of every key.
    pub fn has_purposes(&self) -> bool {
        self.0.iter().all(|(_, purpose)| purpose.is_some())
    }
}

#[cfg(test)]
mod tests {
    use shared::signing::PrivateKey;

    use super::*;

    #[test]
    fn a_key_counts_only_for_what_its_line_says() {
        let keys: Vec<PublicKey> = (0..3).map(|_| PrivateKey::generate().unwrap().public().clone()).collect();
        let text = format!(
            "{}\n{}{}\n{}\n{}",
            purpose_line(KeyPurpose::Evidence),
            keys[0].to_pem(),
            purpose_line(KeyPurpose::Seals),
            keys[1].to_pem(),
            keys[2].to_pem()
        );
        let ring = Keyring::of(&text).unwrap();
        assert_eq!(ring.keys(KeyPurpose::Evidence), [keys[0].clone(), keys[2].clone()]);
        assert_eq!(ring.keys(KeyPurpose::Seals), [keys[1].clone(), keys[2].clone()]);
        assert_eq!(ring.keys(KeyPurpose::Decisions), [keys[2].clone()], "a key without a purpose counts for each");
        assert!(!ring.has_purposes() && Keyring::of("").unwrap().0.is_empty());
        for unknown in ["# Decisions", "#decisions", "# decision", "# seals and evidence", "# of acme"] {
            let error = Keyring::of(&format!("{unknown}\n{}", keys[0].to_pem())).err().expect(unknown).to_string();
            assert!(error.contains(unknown) && error.contains("\"# decisions\""), "{error}");
        }
        let commented = format!("# of acme\n{}\n{}", purpose_line(KeyPurpose::Seals), keys[0].to_pem());
        assert!(Keyring::of(&commented).unwrap().has_purposes());
        assert!(Keyring::of("-----BEGIN PUBLIC KEY-----\nMFkw").is_err());
    }
}
