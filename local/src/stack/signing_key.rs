//! The keys with which a local stack signs: evidence, decisions and seals each have their own. Only the host that signs gets the
//! path of a file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use shared::signing::{create_private_key, private_key};

use crate::function::SWEEPER;

/// The host of the HTTP functions, of which `approvals` and `console` sign decisions.
pub const HTTP_HOST: &str = "http";

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    Evidence,
    Decisions,
    Seals,
}

impl Signs {
    pub const ALL: [Self; 3] = [Self::Evidence, Self::Decisions, Self::Seals];

    /// The file of the key, the variables with its path and its public key, and the host that signs with it.
    const fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Evidence => ("key.pem", "SIGNING_KEY_FILE", "SIGNING_PUBLIC_KEYS", "gate"),
            Self::Decisions => ("decisions.pem", "DECISION_KEY_FILE", "DECISION_PUBLIC_KEYS", HTTP_HOST),
            Self::Seals => ("seals.pem", "SEAL_KEY_FILE", "SEAL_PUBLIC_KEYS", SWEEPER),
        }
    }
}

/// A key in a file.
#[derive(Clone, Debug)]
pub struct SigningKey {
    pub purpose: Signs,
    pub file: PathBuf,
    /// The public key as PEM on one line, for an environment variable.
    pub public: String,
}

impl SigningKey {
    /// The variable that gives the key to a host of functions. Only the one that signs gets it.
    pub fn variable_of(&self, host: &str) -> Option<(&'static str, String)> {
        let (_, variable, _, signer) = self.purpose.names();
        (host == signer).then(|| (variable, self.file.display().to_string()))
    }

    /// The variable with the public key, for every function.
    pub fn public_variable(&self) -> (&'static str, String) {
        (self.purpose.names().2, self.public.clone())
    }

    /// The key of this purpose below this state folder. Makes one if there is none.
    pub fn ready(state: &Path, purpose: Signs) -> Result<Self> {
        let folder = state.join("signing");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let file = folder.join(purpose.names().0);
        create_private_key(&file).with_context(|| format!("cannot write {}", file.display()))?;
        let key = private_key(&file).map_err(|reason| anyhow!("cannot use the signing key {reason}"))?;
        Ok(Self { purpose, public: key.public().to_pem().replace('\n', " "), file })
    }
}

#[cfg(test)]
mod tests {
    use shared::signing::PublicKey;

    use super::*;
    use crate::function;

    #[test]
    fn only_the_host_that_signs_gets_a_key() {
        for (purpose, variable, signer) in [
            (Signs::Evidence, "SIGNING_KEY_FILE", "gate"),
            (Signs::Decisions, "DECISION_KEY_FILE", "http"),
            (Signs::Seals, "SEAL_KEY_FILE", "sweeper"),
        ] {
            let key = SigningKey { purpose, file: "/key.pem".into(), public: String::new() };
            let hosts: Vec<_> =
                function::names().chain([HTTP_HOST]).filter(|name| key.variable_of(name).is_some()).collect();
            assert_eq!(hosts, [signer]);
            assert_eq!(key.variable_of(signer), Some((variable, "/key.pem".to_owned())));
        }
    }

    #[test]
    fn a_stack_keeps_its_keys_and_has_one_for_each_purpose() {
        let state = std::env::temp_dir().join(format!("nofx-key-{}", std::process::id()));
        let keys = Signs::ALL.map(|purpose| SigningKey::ready(&state, purpose).unwrap());
        for first in &keys {
            let second = SigningKey::ready(&state, first.purpose).unwrap();
            assert_eq!(first.public, second.public);
            assert_eq!(PublicKey::from_pem(&first.public).unwrap(), *private_key(&first.file).unwrap().public());
        }
        assert!(
            keys[0].public != keys[1].public && keys[1].public != keys[2].public && keys[2].public != keys[0].public
        );
        fs::remove_dir_all(state).unwrap();
    }
}
