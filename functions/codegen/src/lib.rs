//! Tool `codegen`: text or code from a model, stored as an artifact.
//!
//! Inputs: `{topic, bullets}` or `{prompt}`, and optionally `kind` (`text`, `code`, `review`), `name` (file name,
//! default `output.md`), `provider`, `model`. If a step names a provider, only that one is asked. Otherwise the router
//! falls back from one provider to the next. Outputs, metadata and events say which provider answered and why others did
//! not. Events and logs contain neither prompts nor texts.

mod ask;
mod config;
mod cooldown;
mod exchange;
mod fault;
mod inputs;
mod keys;
mod prompt;
mod provider;
mod redact;
mod report;
mod router;
mod usage;
mod wire;

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use shared::domain::{Outcome, StepError};
use shared::error::Error;
use shared::storage::{ArtifactMeta, StepStore};
use shared::telemetry;
use shared::worker::{ClaimedStep, Handler, Ownership};
use tokio::time::{Instant, timeout_at};

use crate::ask::Prompt;
use crate::inputs::Request;
use crate::keys::{KeySource, StepKeys};
use crate::router::{RouteFailure, Router, Task};

pub use crate::config::{CodegenConfig, default_order};
pub use crate::inputs::Kind;
pub use crate::keys::{ApiKey, ProviderKeys};
pub use crate::provider::{PerProvider, Provider};
pub use crate::report::Generated;
pub use crate::usage::TokenUsage;

/// Timeout for looking up the keys.
const KEYS_TIMEOUT: Duration = Duration::from_secs(10);

/// The handler of tool `codegen`.
pub struct Codegen {
    keys: KeySource,
    router: Router,
    allow_template: bool,
    outputs_bytes: usize,
}

impl fmt::Debug for Codegen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codegen").finish_non_exhaustive()
    }
}

impl Codegen {
    /// `keys` looks up the secret that `LLM_SECRET_ID` names. Every step calls it, so it should cache. If it gets an
    /// instant, it must return keys that were read after it: a provider rejected a key, or none was found.
    /// `Error::NotFound` means that no key is configured.
    pub fn new<F>(
        config: CodegenConfig,
        keys: impl Fn(Option<std::time::Instant>) -> F + Send + Sync + 'static,
    ) -> Result<Self, Error>
    where
        F: Future<Output = Result<ProviderKeys, Error>> + Send + 'static,
    {
        let config = config.checked()?;
        Ok(Self {
            keys: KeySource::new(keys),
            allow_template: config.allow_template,
            outputs_bytes: config.outputs_bytes,
            router: Router::new(config),
        })
    }

    /// Generates the text but does not store it. `Err` is the outcome of a step with nothing to store. Stops asking
    /// providers once `ownership` is lost.
    pub async fn generate(
        &self,
        inputs: &Value,
        timeout: Duration,
        ownership: &Ownership,
    ) -> Result<Generated, Box<Outcome>> {
        let deadline = Instant::now() + timeout;
        let request = Request::parse(inputs)
            .map_err(|problems| Box::new(Outcome::failed(StepError::invalid_inputs(problems))))?;
        let candidates = self.router.candidates(&request);
        if candidates.is_empty() {
            return Err(Box::new(report::provider_excluded(&request)));
        }
        let keys =
            self.look_up(&candidates, deadline).await.map_err(|error| Box::new(report::keys_unavailable(&error)))?;
        let message = prompt::message(&request);
        if !candidates.iter().any(|provider| keys.get(*provider).is_some()) {
            // Use the template only if no key is configured at all, not if the requested provider has no key.
            return if self.allow_template && keys.is_empty() {
                Ok(report::from_template(&request, &message))
            } else {
                Err(Box::new(report::no_provider(&candidates, &keys)))
            };
        }
        let prompt = Prompt { instructions: prompt::instructions(&request), message: &message };
        let task = Task { request: &request, prompt, ownership, deadline };
        match self.router.route(&task, &mut StepKeys::new(&self.keys, keys)).await {
            Ok(routed) => Ok(report::from_model(&request, prompt, routed)),
            Err(RouteFailure { failures, ownership_lost: true }) => Err(Box::new(report::ownership_lost(&failures))),
            Err(RouteFailure { failures, ownership_lost: false }) => {
                Err(Box::new(report::all_providers_failed(&failures)))
            }
        }
    }

    async fn look_up(&self, candidates: &[Provider], deadline: Instant) -> Result<ProviderKeys, Error> {
        // Read again if a provider recently rejected a key (it may have been rotated), or if no key was found.
        let is_usable = |keys: &ProviderKeys| {
            candidates.iter().any(|provider| keys.get(*provider).is_some())
                && !self.router.has_rejected(candidates, keys)
        };
        let keys = timeout_at(deadline.min(Instant::now() + KEYS_TIMEOUT), self.keys.keys(is_usable)).await;
        keys.unwrap_or_else(|late| Err(Error::unavailable("the store of provider keys", late)))
    }

    async fn store(&self, generated: Generated, store: &StepStore) -> Outcome {
        let describe = ArtifactMeta {
            kind: generated.kind,
            media_type: generated.media_type,
            metadata: generated.metadata.clone(),
            ..ArtifactMeta::default()
        };
        match store.put(&generated.name, describe, generated.text.clone().into_bytes()).await {
            Ok(artifact) => {
                let outputs = generated.outputs(&artifact, self.outputs_bytes);
                Outcome { artifacts: vec![artifact], events: generated.events, ..Outcome::succeeded(outputs) }
            }
            Err(error) => {
                telemetry::report(&error, "store the generated text");
                let step_error =
                    StepError::new("artifact_not_stored", format!("The text could not be stored: {error}."));
                let outcome = match error {
                    Error::Unavailable { .. } => Outcome::retryable(step_error),
                    _ => Outcome::failed(step_error),
                };
                // The tokens are spent, so report them.
                Outcome { events: generated.events, ..outcome }
            }
        }
    }
}

impl Handler for Codegen {
    async fn handle(&self, step: &ClaimedStep, store: &StepStore) -> Outcome {
        self.handle_while_owned(step, store, &Ownership::certain()).await
    }

    async fn handle_while_owned(&self, step: &ClaimedStep, store: &StepStore, ownership: &Ownership) -> Outcome {
        // Reserve a tenth of the time for storing the answer.
        let time = step.timeout.mul_f64(0.9);
        match self.generate(&step.inputs, time, ownership).await {
            Ok(generated) => self.store(generated, store).await,
            Err(outcome) => *outcome,
        }
    }
}
