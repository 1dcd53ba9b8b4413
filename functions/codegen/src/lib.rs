//! Tool `codegen`: text or code from a model, stored as an artifact.
//!
//! Inputs: `{topic, bullets}` or `{prompt}`, and optionally `kind`, `name`, `content_type`, `output`, `provider`,
//! `model` and parameters. If a step names a provider, only that one is asked. Otherwise the router falls back from one model to the
//! next. Metadata and events say which model answered and why others did not. Events and logs contain neither prompts
//! nor texts.
//!
//! `output` makes a text, a set of files or a patch of an answer, and `sbom` its bill of materials.
//!
//! `plan` and `decide` are pure. `router` carries out what they say.

mod ask;
mod cache;
mod call;
mod config;
mod content;
mod decide;
mod exchange;
mod fault;
mod inputs;
mod keep;
mod keys;
mod manifest;
mod materials;
mod output;
mod parameters;
mod plan;
mod progress;
mod prompt;
mod provider;
mod redact;
mod report;
mod resume;
mod router;
mod sbom;
mod schema;
mod stream;
mod usage;
mod wire;

use std::fmt;

use serde_json::json;
use shared::domain::{ArtifactId, NewArtifact, Outcome, StepError};
use shared::error::Error;
use shared::storage::{ArtifactMeta, StepStore};
use shared::telemetry;
use shared::worker::{ClaimedStep, Handler, ModelCalls};
use tokio::time::{Instant, timeout_at};

use crate::ask::Prompt;
use crate::cache::Cache;
use crate::fault::FaultKind;
use crate::inputs::Request;
use crate::keys::{KEYS_TIMEOUT, KeySource, StepKeys};
use crate::plan::{Health, Policy};
use crate::router::{End, Router, Task};

pub use crate::config::{CodegenConfig, default_order};
pub use crate::inputs::Kind;
pub use crate::keys::{ApiKey, ProviderKeys};
pub use crate::materials::{MAX_MATERIAL_BYTES, Material};
pub use crate::output::Output;
pub use crate::provider::{Api, PerProvider, Provider, Target};
pub use crate::report::Generated;

/// The handler of tool `codegen`.
pub struct Codegen {
    keys: KeySource,
    router: Router,
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
        Ok(Self { keys: KeySource::new(keys), router: Router::new(config.checked()?) })
    }

    /// Generates the text but does not store it. `Err` is the outcome of a step with nothing to store. Each request is
    /// started and ended in `calls`, and none is sent once the step is lost. Without `store` the inputs can name no artifacts.
    pub async fn generate(
        &self,
        step: &ClaimedStep,
        store: Option<&StepStore>,
        calls: &ModelCalls,
    ) -> Result<Generated, Box<Outcome>> {
        let claimed = Instant::now();
        // Reserve a tenth of the time for storing the answer.
        let deadline = claimed + step.timeout.mul_f64(0.9);
        let config = self.router.config();
        let request = Request::parse(&step.inputs)
            .map_err(|problems| Box::new(Outcome::failed(StepError::invalid_inputs(problems))))?;
        let materials = match store {
            Some(store) => materials::read(step, &request, store).await?,
            None => Vec::new(),
        };
        let message = prompt::message(&request, step.repair.as_ref(), &materials);
        if request.is_offline {
            let allowed = config.allow_template.then(|| report::from_template(&request, &message));
            return allowed.ok_or_else(|| Box::new(report::template_refused()));
        }
        let reader = keep::reader(&step.models.policy)?;
        let prices = step.models.policy.price_table(step.models.policy_version);
        let policy = Policy { config, terms: &step.models, prices: &prices };
        let keys = self.look_up(&policy, &request, deadline).await;
        let keys = keys.map_err(|error| Box::new(report::keys_unavailable(&error)))?;
        let health = Health { keys: &keys, cooldowns: &step.models.cooldowns };
        let mut plan = plan::plan(&policy, &health, &request, claimed.elapsed());
        if plan.attempts.is_empty() {
            // Use the template only if nothing is configured at all, not if the requested provider has no key.
            let is_unconfigured = keys.is_empty() && !config.has_default(Provider::Compatible);
            let lacks_keys = plan.left_out.iter().all(|left_out| left_out.kind == FaultKind::NoKey);
            return if config.allow_template && is_unconfigured && lacks_keys {
                Ok(report::from_template(&request, &message))
            } else {
                Err(Box::new(report::nothing_to_ask(&plan, config)))
            };
        }
        let earlier = step.pending_request().map(|pending| resume::resume(&mut plan, &pending)).unwrap_or_default();
        let prompt = Prompt { instructions: prompt::instructions(&request).text(), message: &message };
        let cache = Cache::of(&request, &step.inputs, prompt, config);
        if let (Some(cache), Some(store)) = (&cache, store) {
            let first = &plan.attempts[0];
            if let Some(answer) = cache.find((first.provider, &first.model), calls, store).await
                // It was checked by an earlier release.
                && ask::content_problem(&request, &answer.1).is_none()
            {
                let made = report::from_cache(&request, first, answer, step.repair.as_ref(), &materials);
                return keep::with_prompt(made, reader.as_ref(), prompt);
            }
        }
        let task = Task { request: &request, prompt, plan: &plan, earlier: &earlier, calls, deadline };
        let routed = self.router.route(&task, &mut StepKeys::new(&self.keys, keys.clone())).await;
        let max_output_tokens = request.parameters.max_output_tokens.unwrap_or(config.max_output_tokens);
        match routed {
            Ok(routed) => {
                let key = cache.map(|cache| cache.key(routed.provider, &routed.model_requested));
                let repair = step.repair.as_ref();
                let mut made = report::from_model(&request, prompt, repair, &materials, max_output_tokens, routed);
                if let Some(key) = key {
                    made.metadata["cache_key"] = key.into();
                }
                keep::with_prompt(made, reader.as_ref(), prompt)
            }
            Err(stopped) => Err(Box::new(match &stopped.end {
                End::Exhausted => report::all_models_failed(&stopped.failures),
                End::Lost => report::ownership_lost(),
                End::OverBudget(shortfall) => {
                    Outcome::budget_exhausted(step, shortfall, resume::pending(&stopped).as_ref())
                }
                End::Unavailable(error) => report::no_permit(error),
            })),
        }
    }

    async fn look_up(&self, policy: &Policy<'_>, request: &Request, deadline: Instant) -> Result<ProviderKeys, Error> {
        let (_, targets) = plan::targets(policy, request);
        // Read again if a provider recently rejected a key (it may have been rotated), or if no key was found.
        let is_rejected = |provider: Provider, key: &ApiKey| {
            let deployment = plan::deployment(policy.config, provider, Some(key));
            let cooldowns = policy.terms.cooldowns.iter();
            cooldowns.into_iter().any(|cooldown| cooldown.deployment == deployment && cooldown.kind == "auth")
        };
        let is_usable = |keys: &ProviderKeys| {
            let mut found = targets.iter().map(|target| (target.provider, keys.get(target.provider)));
            found.clone().any(|(provider, key)| key.is_some() || !provider.needs_key())
                && !found.any(|(provider, key)| key.is_some_and(|key| is_rejected(provider, key)))
        };
        let keys = timeout_at(deadline.min(Instant::now() + KEYS_TIMEOUT), self.keys.keys(is_usable)).await;
        keys.unwrap_or_else(|late| Err(Error::unavailable("the store of provider keys", late)))
    }

    async fn store(&self, generated: Generated, store: &StepStore) -> Outcome {
        let describe = ArtifactMeta {
            kind: generated.kind,
            media_type: generated.media_type,
            metadata: generated.metadata.clone(),
            made_from: generated.made_from.clone(),
        };
        let stored = async {
            let artifact = store.put(&generated.name, describe, generated.text.clone().into_bytes()).await?;
            let sbom = store_sbom(&generated, artifact.id, store).await?;
            let kept = match &generated.kept {
                Some(kept) => Some(keep::put(store, &artifact, kept).await?),
                None => None,
            };
            Ok::<_, Error>((artifact, sbom, kept))
        };
        match stored.await {
            Ok((artifact, sbom, kept)) => {
                let outputs = generated.outputs(&artifact, self.router.config().outputs_bytes);
                let artifacts = [artifact, sbom].into_iter().chain(kept).collect();
                Outcome { artifacts, events: generated.events, ..Outcome::succeeded(outputs) }
            }
            Err(error) => {
                telemetry::report(&error, "store the generated text");
                let step_error =
                    StepError::new("artifact_not_stored", format!("The text could not be stored: {error}."));
                let outcome = match error {
                    Error::Unavailable { .. } => Outcome::retryable(step_error),
                    _ => Outcome::failed(step_error),
                };
                Outcome { events: generated.events, ..outcome }
            }
        }
    }
}

/// Stores the bill of materials of a result.
async fn store_sbom(generated: &Generated, of: ArtifactId, store: &StepStore) -> Result<NewArtifact, Error> {
    let document = sbom::document(generated);
    let bytes = serde_json::to_vec_pretty(&document).map_err(|error| Error::internal("write the SBOM", error))?;
    let describe = ArtifactMeta {
        kind: sbom::KIND,
        media_type: sbom::MEDIA_TYPE,
        metadata: json!({ "of": of, "spec_version": document["specVersion"] }),
        made_from: vec![of],
    };
    store.put(&sbom::name(&generated.name), describe, bytes).await
}

impl Handler for Codegen {
    /// Without a database: nothing is accounted for.
    async fn handle(&self, step: &ClaimedStep, store: &StepStore) -> Outcome {
        self.handle_with_models(step, store, &ModelCalls::unaccounted()).await
    }

    async fn handle_with_models(&self, step: &ClaimedStep, store: &StepStore, calls: &ModelCalls) -> Outcome {
        match self.generate(step, Some(store), calls).await {
            Ok(generated) => self.store(generated, store).await,
            Err(outcome) => *outcome,
        }
    }
}
