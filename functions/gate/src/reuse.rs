//! Finds evidence that an earlier run left for the same inputs. A note in the bucket leads to it. The note is only a hint:
//! what counts is the evidence, with the signature that we made.

use nofx_gates::attestation::{self, Envelope, MAX_ENVELOPE_BYTES};
use nofx_gates::evidence::{Attempt, Evidence};
use nofx_gates::judge::{Archive, Earlier, Runner, RunnerLost};
use nofx_gates::run::{Bundle, Job};
use serde::{Deserialize, Serialize};
use shared::domain::NewArtifact;
use shared::domain::outcome::ArtifactRef;
use shared::signing::{PublicKey, Signer};
use shared::storage::StepStore;

use crate::runner::AttemptRunner;

const SCHEMA: &str = "nofx.gate_reuse.v1";
const MAX_NOTE_BYTES: u64 = 16 * 1024;
const MAX_EVIDENCE_BYTES: u64 = 64 * 1024 * 1024;

/// The runner of one attempt, which knows what earlier runs left.
pub struct RemembersRuns<'a> {
    pub runner: AttemptRunner<'a>,
    pub store: &'a StepStore,
    pub signer: &'a Signer,
}

/// Where the evidence of a key is.
#[derive(Serialize, Deserialize)]
struct Note {
    schema: String,
    run_id: String,
    step_id: String,
    evidence: ArtifactRef,
    attestation: ArtifactRef,
}

impl Runner for RemembersRuns<'_> {
    async fn run(&self, archive: &Archive, job: Job) -> Result<Bundle, RunnerLost> {
        self.runner.run(archive, job).await
    }

    async fn earlier(&self, key: &str) -> Option<Earlier> {
        match find(self.store, self.signer, key).await {
            Ok(found) => found,
            Err(why) => {
                tracing::warn!(%why, "earlier evidence cannot be used, so the gate runs again");
                None
            }
        }
    }
}

/// Leaves a note for later runs. They only run again without it, so an error is logged.
pub async fn remember(
    store: &StepStore,
    key: &str,
    attempt: &Attempt,
    evidence: &NewArtifact,
    attestation: &NewArtifact,
) {
    let note = Note {
        schema: SCHEMA.to_owned(),
        run_id: attempt.run_id.clone(),
        step_id: attempt.step_id.clone(),
        evidence: stored(evidence),
        attestation: stored(attestation),
    };
    let Ok(bytes) = serde_json::to_vec(&note) else { return };
    if let Err(error) = store.remember(key, bytes).await {
        tracing::warn!(%error, "later runs cannot find this evidence");
    }
}

async fn find(store: &StepStore, signer: &Signer, key: &str) -> Result<Option<Earlier>, String> {
    let Some(bytes) = store.recall(key, MAX_NOTE_BYTES).await.map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let note: Note = serde_json::from_slice(&bytes).map_err(|error| format!("the note is invalid: {error}"))?;
    if note.schema != SCHEMA {
        return Err(format!("the note's schema is {:?}, not {SCHEMA}", note.schema));
    }
    let evidence = store.get(&note.evidence, MAX_EVIDENCE_BYTES).await.map_err(|error| error.to_string())?;
    let envelope = store.get(&note.attestation, MAX_ENVELOPE_BYTES as u64).await.map_err(|error| error.to_string())?;
    let public = signer.public_key().await.map_err(|error| error.to_string())?;
    verified(&note, &evidence, &envelope, public).map(Some)
}

/// The evidence, if the envelope holds exactly the statement that we sign about it.
fn verified(note: &Note, evidence: &[u8], envelope: &[u8], public: PublicKey) -> Result<Earlier, String> {
    let sha256 = note.evidence.hash.clone();
    let evidence = Evidence::decode(evidence, &sha256).map_err(|why| format!("the evidence is unusable: {why}"))?;
    let envelope = Envelope::read(envelope).map_err(|error| error.to_string())?;
    let signed = envelope.verify(&[public], 1).map_err(|error| error.to_string())?;
    let signed = signed.statement().map_err(|error| error.to_string())?;
    let expected = attestation::statement(&evidence, &sha256).map_err(|error| error.to_string())?;
    if signed != expected {
        return Err("the attestation is about other evidence".to_owned());
    }
    let attempt = evidence.attempt.as_ref().map(|attempt| (&attempt.run_id, &attempt.step_id));
    if attempt != Some((&note.run_id, &note.step_id)) {
        return Err("the evidence is of another step".to_owned());
    }
    Ok(Earlier { evidence, sha256 })
}

fn stored(artifact: &NewArtifact) -> ArtifactRef {
    ArtifactRef {
        id: artifact.id,
        uri: artifact.uri.clone(),
        hash: artifact.hash.clone(),
        size_bytes: artifact.size_bytes,
        media_type: artifact.media_type.clone(),
    }
}

#[cfg(test)]
mod tests {
    use nofx_gates::evidence::Reason;
    use shared::domain::ArtifactId;
    use shared::domain::digest::sha256_hex;
    use shared::signing::PrivateKey;
    use uuid::Uuid;

    use super::*;

    fn reference(bytes: &[u8]) -> ArtifactRef {
        ArtifactRef {
            id: ArtifactId(Uuid::nil()),
            uri: "s3://bucket/key".into(),
            hash: sha256_hex(bytes),
            size_bytes: bytes.len() as u64,
            media_type: "application/json".into(),
        }
    }

    /// Evidence with its envelope, and a note about both.
    async fn left(message: &str, key: PrivateKey) -> (Note, Vec<u8>, Vec<u8>) {
        let mut evidence = Evidence::new("unit", Reason { code: "c".into(), message: message.into() }, 1);
        evidence.attempt = Some(Attempt { run_id: "r".into(), step_id: "s".into(), number: 1 });
        let encoded = evidence.encode().unwrap();
        let statement = attestation::statement(&evidence, &encoded.sha256).unwrap();
        let envelope = attestation::sign(statement.payload().unwrap(), &Signer::with_key(key)).await.unwrap();
        let envelope = envelope.to_json().unwrap();
        let note = Note {
            schema: SCHEMA.into(),
            run_id: "r".into(),
            step_id: "s".into(),
            evidence: reference(&encoded.bytes),
            attestation: reference(&envelope),
        };
        (note, encoded.bytes, envelope)
    }

    #[tokio::test]
    async fn only_evidence_that_we_signed_is_used() {
        let pem = PrivateKey::generate().unwrap().to_pem().unwrap();
        let key = || PrivateKey::from_pem(&pem).unwrap();
        let public = key().public().clone();
        let (mut note, evidence, envelope) = left("one", key()).await;
        assert_eq!(verified(&note, &evidence, &envelope, public.clone()).unwrap().sha256, sha256_hex(&evidence));

        let (_, _, of_others) = left("one", PrivateKey::generate().unwrap()).await;
        let why = verified(&note, &evidence, &of_others, public.clone()).unwrap_err();
        assert!(why.contains("0 of the given keys"), "{why}");
        let (other, other_evidence, other_envelope) = left("two", key()).await;
        let why = verified(&note, &evidence, &other_envelope, public.clone()).unwrap_err();
        assert!(why.contains("other evidence"), "{why}");
        assert!(verified(&note, &other_evidence, &other_envelope, public.clone()).is_err(), "another hash");
        verified(&other, &other_evidence, &other_envelope, public.clone()).unwrap();
        note.step_id = "t".into();
        assert!(verified(&note, &evidence, &envelope, public).unwrap_err().contains("another step"));
    }
}
