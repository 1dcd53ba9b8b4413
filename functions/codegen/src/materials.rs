//! Texts that a request hands to the model beside its prompt, such as artifacts of earlier steps.

use serde_json::{Map, Value, json};
use shared::domain::repair::RepairTask;
use shared::domain::{ArtifactId, ArtifactRef, Outcome, Problem, StepError};
use shared::error::Error;
use shared::storage::{StepStore, step_code};
use shared::telemetry;
use shared::worker::ClaimedStep;

use crate::inputs::Request;
use crate::sbom;

/// All materials of a request together.
pub const MAX_MATERIAL_BYTES: u64 = 512 * 1024;

/// Evidence that a repair reads.
const MAX_EVIDENCE_BYTES: u64 = 1024 * 1024;

/// A text that the model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// What it is, in a few words.
    pub title: String,
    pub artifact: ArtifactRef,
    pub text: String,
}

impl Material {
    /// As metadata name it.
    pub(crate) fn describe(&self) -> Value {
        json!({ "artifact_id": self.artifact.id, "sha256": self.artifact.hash })
    }
}

/// Reads the artifacts that the inputs name, in their order. `Err` is the outcome if one of them is no text, or all are too large.
pub(crate) async fn read(
    step: &ClaimedStep,
    request: &Request,
    store: &StepStore,
) -> Result<Vec<Material>, Box<Outcome>> {
    let mut left = MAX_MATERIAL_BYTES;
    let mut materials = Vec::new();
    for (at, id) in request.artifacts.iter().enumerate() {
        let path = format!("inputs.artifacts[{at}]");
        let artifact = step.artifacts.get(id).ok_or_else(|| invalid(&path, "no artifact has this id"))?;
        if artifact.size_bytes > left {
            let message = format!("all artifacts together may have at most {MAX_MATERIAL_BYTES} bytes");
            return Err(invalid(&path, &message));
        }
        let bytes = store.get(artifact, left).await.map_err(|error| unreadable(&error))?;
        left -= artifact.size_bytes;
        let text = String::from_utf8(bytes).map_err(|_| invalid(&path, "is not UTF-8 text"))?;
        let media_type = artifact.media_type.split(';').next().unwrap_or_default().trim();
        let title = format!("an artifact of type {media_type}");
        materials.push(Material { title, artifact: artifact.clone(), text });
    }
    if let Some(task) = &step.repair {
        materials.extend(of_repair(task, store, left).await?);
    }
    Ok(materials)
}

/// What a repair starts from: what the model answered before, and what the gate found. Of what does not fit, the gate's sentence in the
/// message has to do.
async fn of_repair(task: &RepairTask, store: &StepStore, mut left: u64) -> Result<Vec<Material>, Box<Outcome>> {
    let mut materials = Vec::new();
    let answers = task.previous.iter().filter(|artifact| artifact.media_type != sbom::MEDIA_TYPE);
    for artifact in answers {
        if artifact.size_bytes <= left {
            let bytes = store.get(artifact, left).await.map_err(|error| unreadable(&error))?;
            left -= artifact.size_bytes;
            if let Ok(text) = String::from_utf8(bytes) {
                materials.push(Material { title: "your earlier answer".to_owned(), artifact: artifact.clone(), text });
            }
        }
    }
    let Some(evidence) = task.evidence.as_ref().filter(|evidence| evidence.size_bytes <= MAX_EVIDENCE_BYTES) else {
        return Ok(materials);
    };
    let bytes = store.get(evidence, MAX_EVIDENCE_BYTES).await.map_err(|error| unreadable(&error))?;
    if let Ok(Value::Object(document)) = serde_json::from_slice(&bytes) {
        let text = findings(document);
        if text.len() as u64 <= left {
            materials.push(Material { title: "what the gate found".to_owned(), artifact: evidence.clone(), text });
        }
    }
    Ok(materials)
}

/// The parts of evidence that say what is wrong. Secrets in it are redacted already.
fn findings(mut document: Map<String, Value>) -> String {
    let mut found = Map::new();
    for field in ["verdict", "reason", "findings", "tests", "coverage", "context", "integrity", "command"] {
        if let Some(value) = document.remove(field).filter(|value| !value.is_null()) {
            found.insert(field.to_owned(), value);
        }
    }
    serde_json::to_string_pretty(&found).unwrap_or_default()
}

/// The ids without repetitions.
pub(crate) fn ids(materials: &[Material]) -> Vec<ArtifactId> {
    let mut ids: Vec<_> = materials.iter().map(|material| material.artifact.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn invalid(path: &str, message: &str) -> Box<Outcome> {
    Box::new(Outcome::failed(StepError::invalid_inputs(vec![Problem::new(path, message)])))
}

fn unreadable(error: &Error) -> Box<Outcome> {
    telemetry::report(error, "read an artifact");
    let code = step_code(error, "artifact_unreadable");
    let step_error = StepError::new(code, format!("An artifact cannot be read: {error}."));
    Box::new(match error {
        Error::Unavailable { .. } => Outcome::retryable(step_error),
        _ => Outcome::failed(step_error),
    })
}
