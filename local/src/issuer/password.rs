//! Passwords of users: PBKDF2-HMAC-SHA256 (RFC 8018).

use std::num::NonZeroU32;

use anyhow::{Result, anyhow};
use aws_lc_rs::pbkdf2::{PBKDF2_HMAC_SHA256, derive, verify};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What OWASP recommends for this hash.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).unwrap();
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// A longer password is none. People type it.
const MAX_BYTES: usize = 256;
/// The letters and digits of base 32, of which each carries 5 bits.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Four groups of four: 80 bits.
const GROUPS: usize = 4;

/// What is kept of a password. The default is that of no user, and no password has it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    salt: String,
    hash: String,
}

impl Stored {
    /// A new password, and what is kept of it.
    pub fn generate() -> Result<(String, Self)> {
        let password = random::<{ 4 * GROUPS }>()?.map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
        let groups: Vec<String> = password.chunks(4).map(|group| group.iter().collect()).collect();
        let password = groups.join("-");
        let (salt, mut hash) = (random::<SALT_BYTES>()?, [0; HASH_BYTES]);
        derive(PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password.as_bytes(), &mut hash);
        Ok((password, Self { salt: STANDARD.encode(salt), hash: STANDARD.encode(hash) }))
    }

    /// Whether this is the password. It takes about 0.2 seconds.
    pub fn is(&self, password: &str) -> bool {
        let [salt, hash] = [&self.salt, &self.hash].map(|text| STANDARD.decode(text).unwrap_or_default());
        let secret = if password.len() <= MAX_BYTES { password.as_bytes() } else { &[] };
        // A hash of another length is none, and must not end early.
        let hash = if hash.len() == HASH_BYTES { hash } else { vec![0; HASH_BYTES] };
        verify(PBKDF2_HMAC_SHA256, ITERATIONS, &salt, secret, &hash).is_ok() && !secret.is_empty()
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("no randomness"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_is_right() {
        let (password, stored) = Stored::generate().unwrap();
        assert_eq!(password.len(), 19, "{password}");
        assert!(stored.is(&password));
        for wrong in ["", " ", &password.to_uppercase(), &password[..18], &format!("{password} "), &"x".repeat(1000)] {
            assert!(!stored.is(wrong), "{wrong:?}");
        }
        let (other, _) = Stored::generate().unwrap();
        assert!(!stored.is(&other));
    }

    #[test]
    fn nothing_is_the_password_of_nobody() {
        for stored in [Stored::default(), Stored { salt: "!".into(), hash: "!".into() }] {
            for password in ["", "password", "\0"] {
                assert!(!stored.is(password), "{password:?}");
            }
        }
    }
}
