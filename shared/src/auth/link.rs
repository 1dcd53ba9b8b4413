//! One-time links to gates: `nofx_link_<id>_<secret>`.
//!
//! The id is base 32 of a UUID, the secret that of 32 random bytes, as in an API token. But a link proves nobody's identity: no
//! request is accepted with it instead of a login. The text is shown once, when the link is made. The database stores the
//! sha256 of the secret.

use std::fmt;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

use super::token::BASE32;
use crate::domain::LinkId;
use crate::domain::principal::TokenHash;
use crate::error::Error;

/// What every link starts with. No API token does.
const PREFIX: &str = "nofx_link_";
/// A longer text is no link.
const MAX_BYTES: usize = 100;
const SECRET_BYTES: usize = 32;

/// A link to a gate. Its `Debug` shows no part of the secret.
#[derive(Clone)]
#[cfg_attr(test, derive(PartialEq, Eq))]
pub struct LinkToken {
    pub id: LinkId,
    secret: [u8; SECRET_BYTES],
}

impl LinkToken {
    /// A new link with this id.
    pub fn generate(id: LinkId) -> Result<Self, Error> {
        let mut secret = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut secret).map_err(|_| Error::internal("make a link", "no randomness"))?;
        Ok(Self { id, secret })
    }

    /// Reads a link from a path. None if any character is not as [`LinkToken::expose`] writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = Some(text).filter(|text| text.len() <= MAX_BYTES)?.strip_prefix(PREFIX)?;
        let (id, secret) = rest.split_once('_')?;
        Some(Self {
            id: LinkId(Uuid::from_bytes(BASE32.decode(id.as_bytes()).ok()?.try_into().ok()?)),
            secret: BASE32.decode(secret.as_bytes()).ok()?.try_into().ok()?,
        })
    }

    /// The whole text. Show it once, and never log it.
    pub fn expose(&self) -> String {
        format!("{}_{}", self.public_part(), BASE32.encode(&self.secret))
    }

    /// What the database stores of the secret.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.secret)
    }

    fn public_part(&self) -> String {
        format!("{PREFIX}{}", BASE32.encode(self.id.0.as_bytes()))
    }
}

impl fmt::Debug for LinkToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_…", self.public_part())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::ApiToken;

    fn link() -> LinkToken {
        LinkToken { id: LinkId(Uuid::from_u128(7)), secret: [1; SECRET_BYTES] }
    }

    #[test]
    fn two_links_with_the_same_id_have_other_secrets() {
        let make = || LinkToken::generate(LinkId(Uuid::nil())).unwrap();
        let (one, other) = (make(), make());
        assert_ne!(one.expose(), other.expose());
        assert_ne!(one.hash(), other.hash());
        assert_eq!(one.hash(), TokenHash::of(&one.secret));
    }

    #[test]
    fn a_log_shows_which_link_it_was_and_no_part_of_its_secret() {
        let (text, shown) = (link().expose(), format!("{:?}", link()));
        assert_eq!(shown, "nofx_link_aaaaaaaaaaaaaaaaaaaaaaaaa4_…");
        let secret = text.rsplit('_').next().unwrap();
        assert_eq!(secret.len(), 52);
        assert!(secret.as_bytes().windows(6).all(|part| !shown.contains(std::str::from_utf8(part).unwrap())));
    }

    #[test]
    fn a_text_that_differs_in_any_way_is_no_link_and_no_link_is_a_token() {
        let text = link().expose();
        let (public, secret) = text.rsplit_once('_').unwrap();
        for bad in [
            String::new(),
            PREFIX.into(),
            public.into(),
            format!("{public}_"),
            format!("{text}_"),
            format!("{text}="),
            format!(" {text}"),
            format!("{text}\n"),
            text.to_uppercase(),
            text.replacen("link", "agent", 1),
            text.replacen("link_", "link__", 1),
            // The last character of the secret holds one bit of it, and four that must be zero.
            format!("{}b", &text[..text.len() - 1]),
            format!("{public}_{}", BASE32.encode(&[1; 31])),
            format!("{public}_{}", BASE32.encode(&[1; 33])),
            format!("{PREFIX}{}_{secret}", BASE32.encode(&[7; 15])),
            format!("{PREFIX}{}_{secret}", BASE32.encode(&[7; 17])),
            format!("{PREFIX}{}_{secret}", "a".repeat(1_000_000)),
        ] {
            assert_eq!(LinkToken::parse(&bad), None, "{}", &bad[..bad.len().min(200)]);
        }
        assert!(ApiToken::parse(&text).is_none());
        assert_eq!(LinkToken::parse(&text), Some(link()));
    }

    proptest! {
        #[test]
        fn a_link_is_read_back(id: u128, secret: [u8; SECRET_BYTES]) {
            let made = LinkToken { id: LinkId(Uuid::from_u128(id)), secret };
            let text = made.expose();
            prop_assert!(text.len() <= MAX_BYTES);
            prop_assert_eq!(LinkToken::parse(&text), Some(made));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = LinkToken::parse(&text);
            let _ = LinkToken::parse(&format!("{PREFIX}{text}"));
        }
    }
}
