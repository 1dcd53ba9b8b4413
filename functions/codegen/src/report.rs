//! The result of a step: outputs, metadata, events and errors.

use std::time::Duration;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use shared::domain::bounds::json_bytes;
use shared::domain::digest::hex;
use shared::domain::{NewArtifact, NewEvent, Outcome, StepError, Verdict};
use shared::error::{Error, Problem};
use shared::telemetry;

use crate::ask::Prompt;
use crate::fault::FaultKind;
use crate::inputs::{Kind, MAX_PROMPT_BYTES, Request};
use crate::keys::ProviderKeys;
use crate::prompt;
use crate::provider::Provider;
use crate::router::{ProviderFailure, Routed};
use crate::usage::TokenUsage;

const TEMPLATE: &str = "template";

/// A text that is ready to be stored, and its metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// File name of the artifact.
    pub name: String,
    /// Kind of the artifact: `text` or `code`.
    pub kind: &'static str,
    pub media_type: &'static str,
    pub text: String,
    pub metadata: Value,
    /// The provider, or `template` if no model wrote the text.
    pub provider: &'static str,
    /// The model that answered.
    pub model: String,
    pub events: Vec<NewEvent>,
}

impl Generated {
    /// The step's outputs once the text is stored. They contain the text, so that other steps can refer to it, unless
    /// it is longer than a prompt may be or the outputs would exceed `max_bytes`.
    pub fn outputs(&self, artifact: &NewArtifact, max_bytes: usize) -> Map<String, Value> {
        let mut outputs = Map::new();
        outputs.insert("artifact_id".to_owned(), json!(artifact.id));
        outputs.insert("uri".to_owned(), json!(artifact.uri));
        outputs.insert("sha256".to_owned(), json!(artifact.hash));
        outputs.insert("provider".to_owned(), json!(self.provider));
        outputs.insert("model".to_owned(), json!(self.model));
        outputs.insert("template".to_owned(), json!(self.provider == TEMPLATE));
        if self.text.len() <= MAX_PROMPT_BYTES {
            outputs.insert("text".to_owned(), json!(self.text));
            if json_bytes(&outputs) > max_bytes {
                outputs.remove("text");
            }
        }
        outputs
    }
}

pub(crate) fn from_model(request: &Request, prompt: Prompt<'_>, routed: Routed) -> Generated {
    let Routed { provider, model_requested, answer, duration, tries, failures } = routed;
    let text = match request.kind {
        Kind::Code if !request.is_markdown() => prompt::without_fence(&answer.text).to_owned(),
        _ => answer.text,
    };
    let mut events = usage_of_failures(&failures);
    events.push(usage_event(
        provider.as_str(),
        &answer.model_served,
        &answer.usage,
        json!({
            "usable": true,
            "model_requested": model_requested,
            "duration_ms": u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            "tries": tries,
            "fallback_from": failures,
        }),
    ));
    Generated {
        name: request.name.clone(),
        kind: artifact_kind(request),
        media_type: request.media_type(),
        metadata: json!({
            "provider": provider,
            "model_requested": model_requested,
            "model_served": answer.model_served,
            "prompt_sha256": sha256(prompt.message),
            "instructions_sha256": sha256(prompt.instructions),
            "tokens": answer.usage,
            "attempts": failures,
            "template": false,
        }),
        text,
        provider: provider.as_str(),
        model: answer.model_served,
        events,
    }
}

pub(crate) fn from_template(request: &Request, message: &str) -> Generated {
    // The template is always Markdown, so do not serve it as JSON or code even if the file name says so.
    let media_type = if request.is_markdown() { request.media_type() } else { "text/plain; charset=utf-8" };
    let none = TokenUsage::default();
    Generated {
        name: request.name.clone(),
        kind: "text",
        media_type,
        text: prompt::template(request),
        metadata: json!({
            "provider": TEMPLATE,
            "model_requested": request.model,
            "model_served": TEMPLATE,
            "prompt_sha256": sha256(message),
            "tokens": none,
            "attempts": [],
            "template": true,
        }),
        provider: TEMPLATE,
        model: TEMPLATE.to_owned(),
        events: vec![usage_event(
            TEMPLATE,
            TEMPLATE,
            &none,
            json!({
                "usable": true, "duration_ms": 0, "tries": 0, "fallback_from": [],
            }),
        )],
    }
}

/// The step names a provider that the operator's order does not include.
pub(crate) fn provider_excluded(request: &Request) -> Outcome {
    let name = request.provider.map_or("none", Provider::as_str);
    let message = format!("{name} is not one of the providers in LLM_ORDER");
    Outcome::failed(StepError::invalid_inputs(vec![Problem::new("inputs.provider", message)]))
}

pub(crate) fn no_provider(candidates: &[Provider], keys: &ProviderKeys) -> Outcome {
    let names: Vec<_> = candidates.iter().map(|provider| provider.key_name()).collect();
    let problems: Vec<_> = candidates.iter().map(|provider| keys.problem(*provider)).collect();
    Outcome::failed(StepError::new(
        "no_provider",
        format!(
            "No model can be asked, because a provider key is missing ({}). Set {} in the secret that LLM_SECRET_ID names.",
            problems.join("; "),
            names.join(" or ")
        ),
    ))
}

/// The step was cancelled or its lease was lost, so no further provider was asked. The database ignores this outcome but
/// records its usage events.
pub(crate) fn ownership_lost(failures: &[ProviderFailure]) -> Outcome {
    let error = StepError::new(
        "ownership_lost",
        "The step was cancelled or its lease was lost, so no further provider was asked.",
    );
    Outcome { events: usage_of_failures(failures), ..Outcome::failed(error) }
}

pub(crate) fn keys_unavailable(error: &Error) -> Outcome {
    telemetry::report(error, "look up the provider keys");
    let step_error = StepError::new("keys_unavailable", format!("The provider keys could not be looked up: {error}."));
    match error {
        Error::Unavailable { .. } => Outcome::retryable(step_error),
        _ => Outcome::failed(step_error),
    }
}

/// No provider gave a usable answer. The outcome is retryable if one of them may recover.
pub(crate) fn all_providers_failed(failures: &[ProviderFailure]) -> Outcome {
    let reasons: Vec<_> = failures.iter().map(|failure| format!("{}: {}", failure.provider, failure.reason)).collect();
    let error =
        StepError::new("providers_failed", format!("No provider gave a usable answer. {}.", reasons.join("; ")))
            .with_details(json!({ "attempts": failures }));
    let transient: Vec<_> = failures.iter().filter(|failure| failure.kind == FaultKind::Transient).collect();
    // Use the shortest wait. If a provider asks for no wait, retry without one.
    let retry_after: Option<Duration> =
        transient.iter().map(|failure| failure.retry_after.unwrap_or_default()).min().filter(|wait| !wait.is_zero());
    let outcome = Outcome::failed(error.clone());
    let verdict = Verdict::Failed { error, retryable: !transient.is_empty(), retry_after };
    Outcome { verdict, events: usage_of_failures(failures), ..outcome }
}

/// One event for each unusable answer, so that all events together add up to the tokens spent.
fn usage_of_failures(failures: &[ProviderFailure]) -> Vec<NewEvent> {
    let event = |failure: &ProviderFailure, usage: &TokenUsage| {
        usage_event(
            failure.provider.as_str(),
            &failure.model,
            usage,
            json!({ "usable": false, "reason": failure.reason }),
        )
    };
    failures.iter().flat_map(|failure| failure.usage.iter().map(move |usage| event(failure, usage))).collect()
}

fn usage_event(provider: &str, model: &str, usage: &TokenUsage, more: Value) -> NewEvent {
    let mut payload = json!({ "provider": provider, "model": model });
    if let Value::Object(payload) = &mut payload {
        for part in [json!(usage), more] {
            if let Value::Object(part) = part {
                payload.extend(part);
            }
        }
    }
    NewEvent { kind: "codegen.usage".to_owned(), payload }
}

fn artifact_kind(request: &Request) -> &'static str {
    match request.kind {
        Kind::Code => "code",
        Kind::Text | Kind::Review => "text",
    }
}

fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}
