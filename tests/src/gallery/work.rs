//! What the gallery's workers do: the real handlers, except for the steps that a state of a page needs otherwise.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ::codegen::{Codegen, CodegenConfig, PerProvider, Provider, ProviderKeys};
use ::gate::{Gate, Runners};
use ::workspace::Workspaces;
use nofx_gates::judge::Settings;
use shared::domain::{Outcome, RunId, StepError};
use shared::signing::{PrivateKey, Signer};
use shared::storage::{ArtifactMeta, StepStore};
use shared::worker::{ClaimedStep, Handler};
use tokio::sync::Semaphore;

use crate::Script;
use crate::script::succeeded;

/// What a step does instead of its tool's work.
#[derive(Debug, Clone)]
pub enum Act {
    /// Never ends, so that its step stays running.
    Hold,
    /// Fails with this error.
    Fail { code: &'static str, message: &'static str, retryable: bool },
    /// Stores these files. All but the first are made from the first.
    Store(Vec<Stored>),
}

/// A file that a step stores.
#[derive(Debug, Clone)]
pub struct Stored {
    pub name: &'static str,
    pub kind: &'static str,
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
}

/// The acts of steps, and a permit for each step that is held.
#[derive(Debug)]
pub struct Acts {
    of_step: Mutex<HashMap<(RunId, String), Act>>,
    pub held: Semaphore,
}

impl Default for Acts {
    fn default() -> Self {
        Self { of_step: Mutex::default(), held: Semaphore::new(0) }
    }
}

impl Acts {
    pub fn set(&self, run: RunId, step: &str, act: Act) {
        self.of_step.lock().expect("no panic").insert((run, step.to_owned()), act);
    }

    fn of(&self, step: &ClaimedStep) -> Option<Act> {
        self.of_step.lock().expect("no panic").get(&(step.run_id, step.name.clone())).cloned()
    }

    async fn perform(&self, step: &ClaimedStep, store: &StepStore) -> Option<Outcome> {
        match self.of(step)? {
            Act::Hold => {
                self.held.add_permits(1);
                std::future::pending().await
            }
            Act::Fail { code, message, retryable: true } => Some(Outcome::retryable(StepError::new(code, message))),
            Act::Fail { code, message, retryable: false } => Some(Outcome::failed(StepError::new(code, message))),
            Act::Store(files) => Some(store_all(files, store).await),
        }
    }
}

async fn store_all(files: Vec<Stored>, store: &StepStore) -> Outcome {
    let mut outcome = succeeded(serde_json::json!({ "files": files.len() }));
    for Stored { name, kind, media_type, bytes } in files {
        let made_from = outcome.artifacts.first().map(|first| first.id).into_iter().collect();
        let meta = ArtifactMeta { kind, media_type, made_from, ..ArtifactMeta::default() };
        outcome.artifacts.push(store.put(name, meta, bytes).await.expect("it is stored"));
    }
    outcome
}

/// The handlers of every tool but `db_write`. Commands of gates run in the program `runner`, and models are asked at
/// `models`.
pub fn script(acts: Arc<Acts>, folder: &Path, runner: &Path, key: PrivateKey, models: &str) -> Script {
    let gate = Arc::new(Gate {
        settings: Settings::new(folder.join("judge")),
        runners: Runners::Process { program: runner.to_owned() },
        signer: Signer::with_key(key),
        default_workspace: None,
        default_base: None,
    });
    let search_path = std::env::var("PATH").expect("a PATH");
    let workspaces = Arc::new(Workspaces::new(folder.join("workspaces"), search_path));
    let codegen = Arc::new(codegen(models));
    Script::overriding_with_models(move |step, store, calls| {
        let (acts, gate) = (Arc::clone(&acts), Arc::clone(&gate));
        let (workspaces, codegen) = (Arc::clone(&workspaces), Arc::clone(&codegen));
        Box::pin(async move {
            if let Some(outcome) = acts.perform(step, store).await {
                return Some(outcome);
            }
            match step.tool.as_str() {
                "codegen" => Some(codegen.handle_with_models(step, store, calls).await),
                tool if tool.starts_with("gate:") => Some(gate.handle(step, store).await),
                tool if tool.starts_with("workspace:") => Some(workspaces.handle(step, store).await),
                _ => None,
            }
        })
    })
}

/// The handler of `codegen`. OpenAI is asked first.
fn codegen(models: &str) -> Codegen {
    let url = Some(models.to_owned());
    let config = CodegenConfig {
        order: Some(vec![Provider::OpenAi.into(), Provider::Anthropic.into()]),
        base_urls: PerProvider { openai: url.clone(), anthropic: url, ..PerProvider::default() },
        ..CodegenConfig::default()
    };
    let keys = r#"{ "OPENAI_API_KEY": "openai-key", "ANTHROPIC_API_KEY": "anthropic-key" }"#;
    Codegen::new(config, move |_| std::future::ready(ProviderKeys::from_secret(keys))).expect("a configuration")
}
