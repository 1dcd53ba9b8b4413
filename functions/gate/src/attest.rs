//! Signs evidence: an attestation that anybody can verify with the keys of `GET /keys`.

use nofx_gates::attestation;
use nofx_gates::evidence::{Encoded, Evidence};
use serde_json::json;
use shared::domain::{ArtifactId, NewArtifact, Outcome, StepError};
use shared::error::Error;
use shared::signing::Signer;
use shared::storage::{ArtifactMeta, StepStore};

/// The media type of DSSE envelopes.
const MEDIA_TYPE: &str = "application/vnd.dsse.envelope.v1+json";

/// Signs a statement about stored evidence and stores the envelope. `Err` is the outcome of the step: without an
/// attestation, a gate has no result.
pub async fn attest(
    store: &StepStore,
    signer: &Signer,
    evidence: &Evidence,
    encoded: &Encoded,
    evidence_artifact: ArtifactId,
) -> Result<NewArtifact, Outcome> {
    let unwritable = |error: serde_json::Error| {
        Outcome::retryable(StepError::new("evidence_unwritable", format!("the attestation cannot be written: {error}")))
    };
    let statement = attestation::statement(evidence, &encoded.sha256).map_err(unwritable)?;
    let payload = statement.payload().map_err(unwritable)?;
    let envelope = attestation::sign(payload, signer).await.map_err(|error| unsigned(&error))?;
    let describe = ArtifactMeta {
        kind: "gate_attestation",
        media_type: MEDIA_TYPE,
        metadata: json!({
            "gate": evidence.gate,
            "verdict": evidence.verdict,
            "predicate_type": attestation::PREDICATE_TYPE,
            "keyids": envelope.keyids(),
        }),
        made_from: vec![evidence_artifact],
    };
    let name = format!("gate-{}.intoto.json", evidence.gate);
    let bytes = envelope.to_json().map_err(unwritable)?;
    store.put(&name, describe, bytes).await.map_err(|error| {
        tracing::warn!(%error, source = ?std::error::Error::source(&error), "the gate cannot reach storage");
        Outcome::retryable(StepError::new("storage_unavailable", error.to_string()))
    })
}

/// The outcome of a gate that cannot sign. A retry helps if KMS was unavailable, but not if no key is configured.
pub(crate) fn unsigned(error: &Error) -> Outcome {
    tracing::error!(%error, source = ?std::error::Error::source(error), "the gate cannot sign its evidence");
    let failed = StepError::new("signing_unavailable", format!("the gate cannot sign its evidence: {error}"));
    if matches!(error, Error::Invalid(_)) { Outcome::failed(failed) } else { Outcome::retryable(failed) }
}

#[cfg(test)]
mod tests {
    use shared::domain::Verdict;

    use super::*;

    #[test]
    fn only_a_missing_key_is_not_retried() {
        for (error, is_retried) in [(Error::invalid("", "no key"), false), (Error::unavailable("KMS", "down"), true)] {
            let outcome = unsigned(&error);
            let Verdict::Failed { error, retryable, .. } = &outcome.verdict else { panic!("{outcome:?}") };
            assert_eq!((error.code.as_str(), *retryable), ("signing_unavailable", is_retried));
        }
    }
}
