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
    /// So many of the given keys made a valid signature.
    #[error("{valid} of the given keys signed the envelope, and {needed} must")]
    Unverified { valid: usize, needed: usize },
    #[error("the signed statement cannot be read: {0}")]
    Statement(String),
}

#[cfg(test)]
#[path = "attestation_tests.rs"]
mod tests;
