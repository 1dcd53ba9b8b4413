//! Handlers whose behaviour the test defines.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use shared::domain::{Outcome, StepError};
use shared::storage::{ArtifactMeta, StepStore};
use shared::worker::{ClaimedStep, Handler, ModelCalls};

type Work = dyn for<'a> Fn(&'a ClaimedStep, &'a StepStore, &'a ModelCalls) -> BoxFuture<'a, Outcome> + Send + Sync;

/// A handler that calls a closure. It serves every tool.
#[derive(Clone)]
pub struct Script(Arc<Work>);

impl Script {
    pub fn new<F, W>(work: W) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
        W: Fn(ClaimedStep, StepStore) -> F + Send + Sync + 'static,
    {
        Self(Arc::new(move |step, store, _| Box::pin(work(step.clone(), store.clone()))))
    }

    /// Behaves like the deployed functions `echo` and `manual:*`. `codegen` stores an artifact with a fixed text.
    pub fn deployed() -> Self {
        Self::new(|step, store| async move { deployed(&step, &store).await })
    }

    /// Like [`Script::deployed`], except for steps for which `work` returns an outcome.
    pub fn overriding<F, W>(work: W) -> Self
    where
        F: Future<Output = Option<Outcome>> + Send + 'static,
        W: Fn(ClaimedStep, StepStore) -> F + Send + Sync + 'static,
    {
        let work = Arc::new(work);
        Self::new(move |step, store| {
            let work = work.clone();
            async move {
                match work(step.clone(), store.clone()).await {
                    Some(outcome) => outcome,
                    None => deployed(&step, &store).await,
                }
            }
        })
    }

    /// Like [`Script::overriding`], with work that calls models.
    pub fn overriding_with_models<W>(work: W) -> Self
    where
        W: for<'a> Fn(&'a ClaimedStep, &'a StepStore, &'a ModelCalls) -> BoxFuture<'a, Option<Outcome>>
            + Send
            + Sync
            + 'static,
    {
        Self(Arc::new(move |step, store, calls| {
            let work = work(step, store, calls);
            Box::pin(async move {
                match work.await {
                    Some(outcome) => outcome,
                    None => deployed(step, store).await,
                }
            })
        }))
    }
}

impl Handler for Script {
    async fn handle(&self, step: &ClaimedStep, store: &StepStore) -> Outcome {
        self.handle_with_models(step, store, &ModelCalls::unaccounted()).await
    }

    async fn handle_with_models(&self, step: &ClaimedStep, store: &StepStore, calls: &ModelCalls) -> Outcome {
        (self.0)(step, store, calls).await
    }
}

async fn deployed(step: &ClaimedStep, store: &StepStore) -> Outcome {
    match step.tool.as_str() {
        "echo" => echo::Echo.handle(step, store).await,
        "codegen" => write_text(step, store).await,
        tool if tool.starts_with("manual:") => manual::Manual.handle(step, store).await,
        tool => Outcome::failed(StepError::new("no_script", format!("no script for {tool}"))),
    }
}

async fn write_text(step: &ClaimedStep, store: &StepStore) -> Outcome {
    let describe = ArtifactMeta { kind: "text", media_type: "text/plain", ..ArtifactMeta::default() };
    match store.put("code.txt", describe, format!("code of {}", step.name).into_bytes()).await {
        Ok(artifact) => {
            let mut outcome = succeeded(json!({ "artifact_hash": artifact.hash }));
            outcome.artifacts.push(artifact);
            outcome
        }
        Err(error) => Outcome::retryable(StepError::new("storage", error.to_string())),
    }
}

/// Succeeds with these outputs.
pub fn succeeded(outputs: Value) -> Outcome {
    match outputs {
        Value::Object(outputs) => Outcome::succeeded(outputs),
        other => panic!("outputs are an object, not {other}"),
    }
}

/// A failure that a retry may fix.
pub fn flaky() -> Outcome {
    Outcome::retryable(StepError::new("flaky", "a transient failure"))
}

/// A failure that a retry cannot fix.
pub fn broken() -> Outcome {
    Outcome::failed(StepError::new("broken", "a permanent failure"))
}
