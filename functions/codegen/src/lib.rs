//! Tool `codegen`: text or code from a model, stored as an artifact.
//!
//! Inputs: `{topic, bullets}` or `{prompt}`, and optionally `kind` (`text`, `code`, `review`), `name` (file name,
//! default `output.md`), `provider`, `model`. A step that names a provider asks only that one. Otherwise the router
//! falls back from one provider to the next. Outputs, metadata and events say who answered and why others did not.
//! Events and logs contain neither prompts nor texts.

mod ask;
mod config;
mod cooldown;
mod exchange;
mod fault;
mod inputs;
mod keys;
mod prompt;
mod provider;
mod report;
mod router;
mod shown;
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

use crate::ask::Question;
use crate::inputs::Request;
use crate::keys::{KeyRing, StepKeys};
use crate::router::{RouteFailure, Router, Task};

pub use crate::config::{CodegenConfig, default_order};
pub use crate::inputs::Kind;
pub use crate::keys::{ApiKey, ProviderKeys};
pub use crate::provider::{PerProvider, Provider};
pub use crate::report::Generated;
pub use crate::usage::TokenUsage;

/// Time limit for looking up the keys.
const KEYS_TIMEOUT: Duration = Duration::from_secs(10);

/// The handler of tool `codegen`.
pub struct Codegen {
    keys: KeyRing,
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
    /// instant, it must return keys that were read after it, because a provider refused a key or none was found.
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
            keys: KeyRing::new(keys),
            allow_template: config.allow_template,
            outputs_bytes: config.outputs_bytes,
            router: Router::new(config),
        })
    }

    /// Does all the work except storing the result. `Err` is the outcome of a step that has nothing to store. Once
    /// `ownership` is lost, no provider is asked any more.
    pub async fn generate(
        &self,
        inputs: &Value,
        timeout: Duration,
        ownership: &Ownership,
    ) -> Result<Generated, Box<Outcome>> {
        let deadline = Instant::now() + timeout;
        let request = Request::parse(inputs)
            .map_err(|problems| Box::new(Outcome::failed(StepError::invalid_inputs(problems))))?;
        let line = self.router.line(&request);
        if line.is_empty() {
            return Err(Box::new(report::excluded(&request)));
        }
        let keys = self.look_up(&line, deadline).await.map_err(|error| Box::new(report::no_keys_told(&error)))?;
        let message = prompt::message(&request);
        if !line.iter().any(|provider| keys.get(*provider).is_some()) {
            // The template is used only if no key is configured at all, not if the key of the requested provider is
            // missing.
            return if self.allow_template && keys.is_empty() {
                Ok(report::from_template(&request, &message))
            } else {
                Err(Box::new(report::no_provider(&line, &keys)))
            };
        }
        let question = Question { instructions: prompt::instructions(&request), message: &message };
        let task = Task { request: &request, question, ownership, deadline };
        match self.router.route(&task, &mut StepKeys::new(&self.keys, keys)).await {
            Ok(routed) => Ok(report::from_model(&request, question, routed)),
            Err(RouteFailure { left, ownership_lost: true }) => Err(Box::new(report::ownership_lost(&left))),
            Err(RouteFailure { left, ownership_lost: false }) => Err(Box::new(report::exhausted(&left))),
        }
    }

    async fn look_up(&self, line: &[Provider], deadline: Instant) -> Result<ProviderKeys, Error> {
        // A key that was refused recently may have been replaced, and a missing one may have been added.
        let suffice = |keys: &ProviderKeys| {
            line.iter().any(|provider| keys.get(*provider).is_some()) && !self.router.has_refused(line, keys)
        };
        let keys = timeout_at(deadline.min(Instant::now() + KEYS_TIMEOUT), self.keys.keys(suffice)).await;
        keys.unwrap_or_else(|late| Err(Error::unavailable("the store of provider keys", late)))
    }

    async fn keep(&self, generated: Generated, store: &StepStore) -> Outcome {
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
                telemetry::report(&error, "store a generated text");
                let told = StepError::new("artifact_not_stored", format!("The text could not be stored: {error}."));
                let outcome = match error {
                    Error::Unavailable { .. } => Outcome::retryable(told),
                    _ => Outcome::failed(told),
                };
                // The tokens were spent anyway.
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
            Ok(generated) => self.keep(generated, store).await,
            Err(outcome) => *outcome,
        }
    }
}
