//! The result of a step: outputs, metadata and errors.

use std::time::Duration;

use serde_json::{Map, Value, json};
use shared::domain::bounds::json_bytes;
use shared::domain::repair::RepairTask;
use shared::domain::{ArtifactId, CachedAnswer, NewArtifact, NewEvent, Outcome, StepError, TokenUsage, Verdict};
use shared::error::{Error, Problem};
use shared::telemetry;

use crate::ask::Prompt;
use crate::config::CodegenConfig;
use crate::fault::FaultKind;
use crate::inputs::{Kind, MAX_PROMPT_BYTES, Request};
use crate::materials::{self, Material};
use crate::output::Output;
use crate::plan::{Attempt, ChosenBy, Plan};
use crate::prompt::{self, sha256};
use crate::router::{ModelFailure, Routed};

const TEMPLATE: &str = "template";
/// How many paths the outputs list.
const LISTED_FILES: usize = 100;

/// A text that is ready to be stored, and its metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// File name of the artifact.
    pub name: String,
    /// Kind of the artifact: `text` or `code`.
    pub kind: &'static str,
    pub media_type: &'static str,
    pub text: String,
    pub output: Output,
    pub metadata: Value,
    /// The provider, or `template` if no model wrote the text.
    pub provider: &'static str,
    /// The model that answered.
    pub model: String,
    /// Artifacts that the model read.
    pub made_from: Vec<ArtifactId>,
    /// The prompt and the answer, encrypted for the reader that the policy names.
    pub kept: Option<String>,
    /// Of the template and of the cache. Requests to models write their events when they are settled.
    pub events: Vec<NewEvent>,
}

impl Generated {
    /// The step's outputs once the text is stored. They contain the text, so that other steps can refer to it, unless
    /// it is longer than a prompt may be or the outputs would exceed `max_bytes`. Of a set or a patch they list the paths.
    pub fn outputs(&self, artifact: &NewArtifact, max_bytes: usize) -> Map<String, Value> {
        let mut outputs = Map::new();
        outputs.insert("artifact_id".to_owned(), json!(artifact.id));
        outputs.insert("uri".to_owned(), json!(artifact.uri));
        outputs.insert("sha256".to_owned(), json!(artifact.hash));
        outputs.insert("provider".to_owned(), json!(self.provider));
        outputs.insert("model".to_owned(), json!(self.model));
        outputs.insert("template".to_owned(), json!(self.provider == TEMPLATE));
        if let Some(paths) = self.output.paths(&self.text) {
            outputs.insert("files".to_owned(), json!(paths.iter().take(LISTED_FILES).collect::<Vec<_>>()));
            outputs.insert("files_count".to_owned(), json!(paths.len()));
        } else if self.text.len() <= MAX_PROMPT_BYTES {
            outputs.insert("text".to_owned(), json!(self.text));
        }
        if json_bytes(&outputs) > max_bytes {
            for name in ["text", "files"] {
                outputs.remove(name);
            }
        }
        outputs
    }
}

pub(crate) fn from_model(
    request: &Request,
    prompt: Prompt<'_>,
    repair: Option<&RepairTask>,
    materials: &[Material],
    max_output_tokens: u32,
    routed: Routed,
) -> Generated {
    let Routed { provider, model_requested, chosen_by, answer, failures } = routed;
    let model = answer.model_served.clone().unwrap_or_else(|| model_requested.clone());
    let mut metadata = json!({
        "provider": provider,
        "model_requested": model_requested,
        "model_served": answer.model_served,
        "kind": request.kind,
        "prompt_sha256": sha256(prompt.message),
        "instructions_sha256": sha256(prompt.instructions),
        "prompt_templates": prompt::templates(request, !materials.is_empty(), repair.is_some()),
        "parameters": parameters(request, max_output_tokens),
        "tokens": answer.usage,
        "attempts": failures,
        "template": false,
    });
    if request.output != Output::Text {
        metadata["output"] = json!(request.output);
    }
    describe_step(&mut metadata, repair, materials, chosen_by);
    Generated {
        name: request.name.clone(),
        kind: artifact_kind(request),
        media_type: request.content_type.media_type,
        metadata,
        text: answer.text,
        output: request.output,
        provider: provider.as_str(),
        model,
        made_from: materials::ids(materials),
        kept: None,
        events: Vec::new(),
    }
}

/// Who chose the model, what it read, and what it repairs. An earlier answer may be another step's, so this replaces what it says.
fn describe_step(metadata: &mut Value, repair: Option<&RepairTask>, materials: &[Material], chosen_by: ChosenBy) {
    let Some(metadata) = metadata.as_object_mut() else { return };
    metadata.insert("chosen_by".to_owned(), json!(chosen_by));
    metadata.insert("materials".to_owned(), materials.iter().map(Material::describe).collect());
    metadata.remove("repair");
    if let Some(task) = repair {
        let task = json!({ "round": task.round, "gate": task.gate, "code": task.code });
        metadata.insert("repair".to_owned(), task);
    }
}

/// An earlier answer. It is marked, and costs nothing.
pub(crate) fn from_cache(
    request: &Request,
    asked: &Attempt,
    (cached, text): (CachedAnswer, String),
    repair: Option<&RepairTask>,
    materials: &[Material],
) -> Generated {
    let CachedAnswer { artifact, run_id, mut metadata, age_s, cost } = cached;
    let model = metadata["model_served"].as_str().unwrap_or(&asked.model).to_owned();
    let facts = json!({ "artifact_id": artifact.id, "run_id": run_id, "age_s": age_s, "saved_usd_micros": cost });
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("cache_key");
        metadata.insert("tokens".to_owned(), json!(TokenUsage::default()));
        metadata.insert("attempts".to_owned(), json!([]));
        metadata.insert("cached".to_owned(), facts.clone());
    }
    describe_step(&mut metadata, repair, materials, asked.chosen_by);
    let mut payload = json!({ "provider": asked.provider, "model": model });
    if let (Value::Object(payload), Value::Object(facts)) = (&mut payload, facts) {
        payload.extend(facts.into_iter().filter(|(_, value)| !value.is_null()));
    }
    let mut made_from = materials::ids(materials);
    made_from.push(artifact.id);
    Generated {
        name: request.name.clone(),
        kind: artifact_kind(request),
        media_type: request.content_type.media_type,
        text,
        output: request.output,
        metadata,
        provider: asked.provider.as_str(),
        model,
        made_from,
        kept: None,
        events: vec![NewEvent { kind: "llm.cached".to_owned(), payload }],
    }
}

/// The parameters that were used. A schema is named by its digest.
fn parameters(request: &Request, max_output_tokens: u32) -> Value {
    let mut parameters = json!(request.parameters);
    parameters["max_output_tokens"] = json!(max_output_tokens);
    if let Some(schema) = &request.parameters.json_schema {
        parameters["json_schema"] = json!({ "sha256": sha256(&schema.to_string()) });
    }
    parameters
}

pub(crate) fn from_template(request: &Request, message: &str) -> Generated {
    // The template is always Markdown, so do not serve it as JSON or code even if the file name says so.
    let has_form = request.is_markdown() || request.output != Output::Text;
    let media_type = if has_form { request.content_type.media_type } else { "text/plain; charset=utf-8" };
    let none = TokenUsage::default();
    let mut payload = json!({ "provider": TEMPLATE, "model": TEMPLATE, "usable": true, "duration_ms": 0, "tries": 0, "fallback_from": [] });
    if let (Value::Object(payload), Value::Object(counts)) = (&mut payload, json!(none)) {
        payload.extend(counts);
    }
    Generated {
        name: request.name.clone(),
        kind: "text",
        media_type,
        text: request.output.offline(prompt::offline(request)),
        output: request.output,
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
        made_from: Vec::new(),
        kept: None,
        events: vec![NewEvent { kind: "codegen.usage".to_owned(), payload }],
    }
}

/// The step asks for the template, and the operator does not allow it.
pub(crate) fn template_refused() -> Outcome {
    let problem = Problem::new("inputs.provider", "template is not allowed here: LLM_ALLOW_TEMPLATE is not set");
    Outcome::failed(StepError::invalid_inputs(vec![problem]))
}

/// Nothing can be asked.
pub(crate) fn nothing_to_ask(plan: &Plan, config: &CodegenConfig) -> Outcome {
    let is_only = |kind| !plan.left_out.is_empty() && plan.left_out.iter().all(|left_out| left_out.kind == kind);
    if is_only(FaultKind::Unsupported) {
        let reasons = plan.left_out.iter().map(|left_out| format!("{}: {}", left_out.provider, left_out.reason));
        let message = format!("cannot be expressed ({})", reasons.collect::<Vec<_>>().join("; "));
        return Outcome::failed(StepError::invalid_inputs(vec![Problem::new("inputs.temperature", message)]));
    }
    let reasons = plan.left_out.iter().map(|left_out| format!("{}: {}", left_out.provider, left_out.reason));
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    if is_only(FaultKind::NotAllowed) {
        let message =
            format!("The tenant's policy allows none of the models ({reasons}). Change models.allow of the policy.");
        return Outcome::failed(StepError::new("model_not_allowed", message));
    }
    Outcome::failed(StepError::new(
        "no_provider",
        format!("No model can be asked ({reasons}). {}.", advice(plan, config)),
    ))
}

/// What to configure so that one of the models that were left out can be asked.
fn advice(plan: &Plan, config: &CodegenConfig) -> String {
    let (mut keys, mut settings) = (Vec::new(), Vec::new());
    for left_out in plan.left_out.iter().filter(|left_out| left_out.kind == FaultKind::NoKey) {
        match config.missing_setting(left_out.provider, &left_out.model) {
            Some(setting) => settings.push(setting),
            None => keys.push(left_out.provider.key_name()),
        }
    }
    let keys = (!keys.is_empty()).then(|| format!("{} in the secret that LLM_SECRET_ID names", keys.join(" or ")));
    let settings = (!settings.is_empty()).then(|| format!("{} in the environment", settings.join(" or ")));
    format!("Set {}", keys.into_iter().chain(settings).collect::<Vec<_>>().join(", or "))
}

/// The step was cancelled or its lease was lost, so no further model was asked. The database ignores this outcome.
pub(crate) fn ownership_lost() -> Outcome {
    Outcome::failed(StepError::new(
        "ownership_lost",
        "The step was cancelled or its lease was lost, so no further model was asked.",
    ))
}

/// No money could be reserved.
pub(crate) fn no_permit(error: &Error) -> Outcome {
    telemetry::report(error, "start a model call");
    let step_error = StepError::new("database_unavailable", format!("No money could be reserved: {error}."));
    match error {
        Error::Unavailable { .. } => Outcome::retryable(step_error),
        _ => Outcome::failed(StepError::new("unrecordable", step_error.message)),
    }
}

pub(crate) fn keys_unavailable(error: &Error) -> Outcome {
    telemetry::report(error, "look up the provider keys");
    let step_error = StepError::new("keys_unavailable", format!("The provider keys could not be looked up: {error}."));
    match error {
        Error::Unavailable { .. } => Outcome::retryable(step_error),
        _ => Outcome::failed(step_error),
    }
}

/// No model gave a usable answer. The outcome is retryable if one of them may recover.
pub(crate) fn all_models_failed(failures: &[ModelFailure]) -> Outcome {
    let unpriced = failures.iter().find_map(|failure| Some((failure, failure.unpriced_in?)));
    if let Some((failure, scope)) = unpriced.filter(|_| failures.iter().all(|failure| failure.tries == 0)) {
        return Outcome::failed(StepError::model_unpriced(failure.provider.as_str(), &failure.model, scope));
    }
    let reasons: Vec<_> = failures.iter().map(|failure| format!("{}: {}", failure.provider, failure.reason)).collect();
    let error =
        StepError::new("providers_failed", format!("No provider gave a usable answer. {}.", reasons.join("; ")))
            .with_details(json!({ "attempts": failures }));
    let transient: Vec<_> = failures.iter().filter(|failure| failure.kind == FaultKind::Transient).collect();
    // Use the shortest wait. If a provider asks for no wait, retry without one.
    let retry_after: Option<Duration> =
        transient.iter().map(|failure| failure.retry_after.unwrap_or_default()).min().filter(|wait| !wait.is_zero());
    let outcome = Outcome::failed(error.clone());
    Outcome { verdict: Verdict::Failed { error, retryable: !transient.is_empty(), retry_after }, ..outcome }
}

fn artifact_kind(request: &Request) -> &'static str {
    match request.kind {
        Kind::Codegen => "code",
        Kind::Docs | Kind::Reasoning => "text",
    }
}
