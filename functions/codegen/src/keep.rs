//! Keeps prompts and answers for a reader that the tenant's policy names. Nobody else can read them.

use serde_json::json;
use shared::domain::model_policy::ModelPolicy;
use shared::domain::{NewArtifact, Outcome, StepError};
use shared::encryption::{MEDIA_TYPE, encrypt};
use shared::error::Error;
use shared::signing::PublicKey;
use shared::storage::{ArtifactMeta, StepStore};

use crate::ask::Prompt;
use crate::report::Generated;

/// The reader's key. `None` if nothing is kept. `Err` if the key cannot be used: then no model is asked.
pub(crate) fn reader(policy: &ModelPolicy) -> Result<Option<PublicKey>, Box<Outcome>> {
    let Some(pem) = policy.keep_prompts.as_deref() else { return Ok(None) };
    PublicKey::from_pem(pem).map(Some).map_err(|why| failed(&format!("models.keep_prompts of the policy: {why}")))
}

/// The answer with what was asked, encrypted for the reader. Also an earlier answer, which may be older than the policy.
pub(crate) fn with_prompt(
    made: Generated,
    reader: Option<&PublicKey>,
    prompt: Prompt<'_>,
) -> Result<Generated, Box<Outcome>> {
    let Some(reader) = reader else { return Ok(made) };
    let text = json!({
        "provider": made.provider,
        "model_requested": made.metadata["model_requested"],
        "model_served": made.metadata["model_served"],
        "instructions": prompt.instructions,
        "message": prompt.message,
        "answer": made.text,
    });
    let kept = encrypt(reader, text.to_string().as_bytes()).map_err(|why| failed(&why.to_string()))?;
    Ok(Generated { kept: Some(kept), ..made })
}

/// Stores it beside the answer that it belongs to.
pub(crate) async fn put(store: &StepStore, answer: &NewArtifact, encrypted: &str) -> Result<NewArtifact, Error> {
    let meta =
        ArtifactMeta { kind: "prompt", media_type: MEDIA_TYPE, made_from: vec![answer.id], ..ArtifactMeta::default() };
    store.put(&format!("{}.prompt.jwe", answer.name), meta, encrypted.as_bytes().to_vec()).await
}

fn failed(why: &str) -> Box<Outcome> {
    let message = format!("The policy says that prompts are kept, and this one cannot be: {why}.");
    Box::new(Outcome::failed(StepError::new("prompt_not_kept", message)))
}
