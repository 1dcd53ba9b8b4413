//! The key with which a local stack signs evidence. Only the function `gate` gets the path of its file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use shared::signing::{create_private_key, private_key};

/// A key in a file.
#[derive(Clone, Debug)]
pub struct SigningKey {
    pub file: PathBuf,
    /// The public key as PEM on one line, for an environment variable.
    pub public: String,
}

impl SigningKey {
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
