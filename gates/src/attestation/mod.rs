//! Attestations: an in-toto statement about a gate's result, signed in a DSSE envelope.
//!
//! To make one: [`statement`] of the evidence, [`Statement::payload`], [`sign`]. To check one, without a control plane:
//! [`Envelope::read`], [`Envelope::verify`] with the public keys that are trusted, [`Verified::statement`], and then
//! [`Statement::names_tree`] or [`Statement::names_archive`] for the code at hand. A payload cannot be read before it is
//! verified.
//!
//! The formats: [DSSE](https://github.com/secure-systems-lab/dsse/blob/master/envelope.md),
//! [Statement v1](https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md),
//! [test-result v0.1](https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md).

mod envelope;
pub(crate) mod json;
mod statement;
mod test_result;

pub use envelope::{Envelope, MAX_ENVELOPE_BYTES, PAYLOAD_TYPE, Verified, sign};
pub use statement::{Descriptor, STATEMENT_TYPE, Statement};
pub use test_result::{PREDICATE_TYPE, TestResult, TestVerdict, statement, test_verdict};

/// Why an attestation is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    #[error("the envelope cannot be read: {0}")]
    Envelope(String),
    /// So many of the given keys made a valid signature. `named` are the ids in the envelope, `given` those of the keys.
    #[error(
        "{valid} of the given keys signed the envelope, and {needed} must: it names {}, and the given keys are {}",
        ids(.named),
        ids(.given)
    )]
    Unverified { valid: usize, needed: usize, named: Vec<String>, given: Vec<String> },
    #[error("the signed statement cannot be read: {0}")]
    Statement(String),
}

/// Ids of keys, for people. Those of an envelope are not signed, so they may be anything.
fn ids(ids: &[String]) -> String {
    const SHOWN: usize = 64;
    if ids.is_empty() {
        return "none".to_owned();
    }
    let short = |id: &String| if id.is_empty() { "no key".to_owned() } else { id.chars().take(SHOWN).collect() };
    ids.iter().map(short).collect::<Vec<String>>().join(", ")
}

#[cfg(test)]
#[path = "attestation_tests.rs"]
mod tests;
