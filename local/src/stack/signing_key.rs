//! The key with which a local stack signs evidence. Only the function `gate` gets the path of its file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use shared::signing::{create_private_key, private_key};

/// The function that signs evidence.
const SIGNER: &str = "gate";

/// A key in a file.
#[derive(Clone, Debug)]
pub struct SigningKey {
    pub file: PathBuf,
    /// The public key as PEM on one line, for an environment variable.
    pub public: String,
}

impl SigningKey {
    /// The variable that gives the key to a function. Only the one that signs gets it.
    pub fn variable_of(&self, function: &str) -> Option<(&'static str, String)> {
        (function == SIGNER).then(|| ("SIGNING_KEY_FILE", self.file.display().to_string()))
    }

    /// The key below this state folder. Makes one if there is none.
    pub fn ready(state: &Path) -> Result<Self> {
        let folder = state.join("signing");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let file = folder.join("key.pem");
        create_private_key(&file).with_context(|| format!("cannot write {}", file.display()))?;
        let key = private_key(&file).map_err(|reason| anyhow!("cannot use the signing key {reason}"))?;
        Ok(Self { public: key.public().to_pem().replace('\n', " "), file })
    }
}

#[cfg(test)]
mod tests {
    use shared::signing::PublicKey;

    use super::*;
    use crate::function;

    #[test]
    fn only_the_function_that_signs_gets_the_key() {
        let key = SigningKey { file: "/key.pem".into(), public: String::new() };
        let functions: Vec<_> = function::names().filter(|name| key.variable_of(name).is_some()).collect();
        assert_eq!(functions, ["gate"]);
        assert_eq!(key.variable_of("gate"), Some(("SIGNING_KEY_FILE", "/key.pem".to_owned())));
    }

    #[test]
    fn a_stack_keeps_its_key() {
        let state = std::env::temp_dir().join(format!("nofx-key-{}", std::process::id()));
        let first = SigningKey::ready(&state).unwrap();
        let second = SigningKey::ready(&state).unwrap();
        assert_eq!(first.public, second.public);
        assert_eq!(PublicKey::from_pem(&first.public).unwrap(), *private_key(&first.file).unwrap().public());
        fs::remove_dir_all(state).unwrap();
    }
}
