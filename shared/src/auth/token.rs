//! API tokens: `nofx_<kind>_<id>_<secret>`.
//!
//! The id is base 32 of a UUID and the tenant, so that the tenant is known before the database is asked. It is a claim:
//! the row must have the same id, tenant, kind and hash. The secret is base 32 of 32 random bytes. The text is shown once,
//! when the token is made. The database stores the sha256 of the secret.

use std::fmt;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use data_encoding::{Encoding, Specification};
use uuid::Uuid;

use crate::domain::digest::hex;
use crate::domain::principal::TokenHash;
use crate::domain::{Kind, TenantId, TokenId};
use crate::error::Error;

/// What every token starts with. No JWT does.
pub const PREFIX: &str = "nofx_";
/// A longer text is not a token.
const MAX_BYTES: usize = 300;
const ID_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
/// The message of the token for forms.
const FORM: &[u8] = b"nofx form";

/// The base 32 of RFC 4648 in lower case, without padding. It has no `_`, and decodes each value from one text only.
pub(super) static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("32 different symbols")
});

/// An API token or a session. Its `Debug` shows no part of the secret.
#[derive(Clone)]
#[cfg_attr(test, derive(PartialEq, Eq))]
pub struct ApiToken {
    pub kind: Kind,
    pub id: TokenId,
    pub tenant: TenantId,
    secret: [u8; SECRET_BYTES],
}

impl ApiToken {
    /// A new token with this id.
    pub fn generate(kind: Kind, id: TokenId, tenant: TenantId) -> Result<Self, Error> {
        let mut secret = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut secret).map_err(|_| Error::internal("make a token", "no randomness"))?;
        Ok(Self { kind, id, tenant, secret })
    }

    /// Reads a token from a request. None if any character is not as [`ApiToken::expose`] writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = Some(text).filter(|text| text.len() <= MAX_BYTES)?.strip_prefix(PREFIX)?;
        let mut parts = rest.split('_');
        let (Some(kind), Some(id), Some(secret), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let id = BASE32.decode(id.as_bytes()).ok()?;
        let (uuid, tenant) = id.split_first_chunk::<ID_BYTES>()?;
        Some(Self {
            kind: Kind::parse(kind)?,
            id: TokenId(Uuid::from_bytes(*uuid)),
            tenant: TenantId::parse(std::str::from_utf8(tenant).ok()?)?,
            secret: BASE32.decode(secret.as_bytes()).ok()?.try_into().ok()?,
        })
    }

    /// The whole token. Show it once, and never log it.
    pub fn expose(&self) -> String {
        format!("{}_{}", self.public_part(), BASE32.encode(&self.secret))
    }

    /// The part before the secret, for people who look for a token.
    pub fn public_part(&self) -> String {
        let id = [self.id.0.as_bytes(), self.tenant.0.as_bytes()].concat();
        format!("{PREFIX}{}_{}", self.kind, BASE32.encode(&id))
    }

    /// The token that a form must contain, so that only a page of this session can send it. It reveals nothing about the secret.
    pub fn form_token(&self) -> String {
        hex(hmac::sign(&self.form_key(), FORM).as_ref())
    }

    /// Whether a text is the token for forms of this session. The comparison takes constant time.
    pub fn is_form_token(&self, text: &str) -> bool {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap_or_default();
        hmac::verify(&self.form_key(), FORM, &bytes).is_ok()
    }

    fn form_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.secret)
    }

    /// What the database stores of the secret.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.secret)
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_…", self.public_part())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(kind: Kind, id: u128, tenant: &str, secret: [u8; 32]) -> ApiToken {
        ApiToken { kind, id: TokenId(Uuid::from_u128(id)), tenant: TenantId(tenant.into()), secret }
    }

    fn sample() -> ApiToken {
        token(Kind::Agent, 7, "acme", [1; SECRET_BYTES])
    }

    #[test]
    fn two_tokens_with_the_same_id_have_other_secrets() {
        let make = || ApiToken::generate(Kind::Service, TokenId(Uuid::nil()), TenantId("acme".into())).unwrap();
        let (one, other) = (make(), make());
        assert_ne!(one.expose(), other.expose());
        assert_ne!(one.hash(), other.hash());
        assert_eq!(one.public_part(), other.public_part());
        assert_eq!(one.hash(), TokenHash::of(&one.secret));
    }

    #[test]
    fn a_form_belongs_to_one_session() {
        let (one, other) = (sample(), token(Kind::Agent, 7, "acme", [2; SECRET_BYTES]));
        assert!(one.is_form_token(&one.form_token()) && !one.is_form_token(&other.form_token()));
        for wrong in ["", "00", &one.form_token()[..62], &one.form_token().to_uppercase(), &hex(one.hash().as_bytes())]
        {
            assert!(!one.is_form_token(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_log_shows_which_token_it_was_and_no_part_of_its_secret() {
        let (text, shown) = (sample().expose(), format!("{:?}", sample()));
        assert_eq!(shown, "nofx_agent_aaaaaaaaaaaaaaaaaaaaaaaaa5qwg3lf_…");
        let secret = text.rsplit('_').next().unwrap();
        assert_eq!(secret.len(), 52);
        assert!(secret.as_bytes().windows(6).all(|part| !shown.contains(std::str::from_utf8(part).unwrap())));
    }

    #[test]
    fn a_text_that_differs_in_any_way_is_no_token() {
        let text = sample().expose();
        let (public, secret) = text.rsplit_once('_').unwrap();
        let id = public.rsplit_once('_').unwrap().1;
        // The last character of the secret holds one bit of it, and four that must be zero.
        let trailing = format!("{}b", &text[..text.len() - 1]);
        let short = BASE32.encode(&[1; 31]);
        let long = BASE32.encode(&[1; 33]);
        let without_tenant = BASE32.encode(&[7; 16]);
        let of_tenant = |tenant: &[u8]| BASE32.encode(&[&[7; 16], tenant].concat());
        let mut bad = vec![
            String::new(),
            "nofx_".into(),
            "nofx____".into(),
            public.into(),
            format!("{public}_"),
            format!("{text}_"),
            format!("{text}="),
            format!(" {text}"),
            format!("{text}\n"),
            format!("{text}\0"),
            text.to_uppercase(),
            text.replacen("nofx_", "NOFX_", 1),
            text.replacen("nofx_", "nofx-", 1),
            text.replacen("agent", "Agent", 1),
            text.replacen("agent", "admin", 1),
            text.replacen("agent", "", 1),
            text.replacen("agent_", "agent__", 1),
            trailing,
            format!("{public}_{short}"),
            format!("{public}_{long}"),
            format!("{public}_{}", secret.to_uppercase()),
            format!("{public}_{}1", &secret[..51]),
            format!("{public}_{}é", &secret[..50]),
            format!("nofx_agent_{}_{secret}", id.to_uppercase()),
            format!("nofx_agent_{without_tenant}_{secret}"),
            format!("nofx_agent_{}_{secret}", &without_tenant[..20]),
            "a".repeat(MAX_BYTES + 1),
            format!("nofx_agent_{}_{secret}", "a".repeat(1_000_000)),
        ];
        let tenants: [&[u8]; 7] = [b".", b"..", b".acme", b"ac me", b"acme/../other", b"a\0", b"\xff\xfe"];
        bad.extend(tenants.map(|tenant| format!("nofx_agent_{}_{secret}", of_tenant(tenant))));
        bad.push(format!("nofx_agent_{}_{secret}", of_tenant(&[b'a'; 65])));
        for text in bad {
            assert_eq!(ApiToken::parse(&text), None, "{}", &text[..text.len().min(200)]);
        }
        assert_eq!(ApiToken::parse(&text), Some(sample()));
    }

    proptest! {
        #[test]
        fn a_token_is_read_back(
            kind in prop::sample::select(Kind::ALL),
            id: u128,
            tenant in "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}",
            secret: [u8; SECRET_BYTES],
        ) {
            let made = token(kind, id, &tenant, secret);
            let text = made.expose();
            prop_assert!(text.len() <= MAX_BYTES);
            prop_assert_eq!(ApiToken::parse(&text), Some(made));
        }

        #[test]
        fn what_is_read_is_written_the_same(text in "nofx_(agent|service|person)_[a-z2-7]{26,60}_[a-z2-7]{51,53}") {
            if let Some(read) = ApiToken::parse(&text) {
                prop_assert_eq!(read.expose(), text);
            }
        }

        #[test]
        fn any_other_character_makes_another_token_or_none(at in 0_usize..200, to in any::<char>()) {
            let mut characters: Vec<char> = sample().expose().chars().collect();
            let at = at % characters.len();
            prop_assume!(characters[at] != to);
            characters[at] = to;
            let changed: String = characters.into_iter().collect();
            if let Some(read) = ApiToken::parse(&changed) {
                prop_assert_ne!(&read, &sample());
                prop_assert_eq!(read.expose(), changed);
            }
        }

        #[test]
        fn no_text_panics(text in ".*", tail in any::<Vec<u8>>()) {
            let _ = ApiToken::parse(&text);
            let _ = ApiToken::parse(&format!("nofx_agent_{}", String::from_utf8_lossy(&tail)));
        }
    }
}
