//! Tokens that must not count: each differs from a good one in one way, and wherever that is possible the issuer signed
//! it, so that nothing else refuses it.

mod claims;
mod forms;
mod headers;
mod keys;
mod signatures;

use super::forge::{Alg, FORGE};

/// What is wrong, and the token.
pub type Hostile = (String, String);

pub fn all() -> Vec<Hostile> {
    [
        keys::algorithms(),
        keys::confusions(),
        signatures::ec(),
        signatures::rsa(),
        forms::forms(),
        forms::encodings(),
        headers::parameters(),
        keys::ids(),
        headers::texts(),
        claims::texts(),
        claims::changed(),
        claims::supabase_keys(),
    ]
    .concat()
}

pub fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().unwrap()
}

pub fn good(alg: Alg) -> String {
    FORGE.token(alg, &super::forge::claims())
}
