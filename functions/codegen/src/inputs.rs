//! Reads the inputs of a codegen step and collects every problem.

use serde::Serialize;
use serde_json::Value;
use shared::domain::fields::{self, Fields, Most, Names, Null};
use shared::domain::{ArtifactId, Problem};

use crate::content::ContentType;
use crate::output::Output;
use crate::parameters::Parameters;
use crate::provider::Provider;

const KNOWN: &[Names] = &[
    &["topic"],
    &["bullets"],
    &["kind"],
    &["prompt"],
    &["name", "filename"],
    &["artifacts"],
    &["cache"],
    &["content_type"],
    &["output"],
    &["provider"],
    &["model"],
    &["max_output_tokens"],
    &["temperature"],
    &["reasoning_effort"],
    &["json_schema"],
];
/// The provider that fills in a template instead of asking a model.
const OFFLINE: &str = "template";
const MAX_TOPIC_BYTES: usize = 4 * 1024;
const MAX_BULLETS: usize = 100;
const MAX_BULLET_BYTES: usize = 4 * 1024;
pub(crate) const MAX_PROMPT_BYTES: usize = 128 * 1024;
const MAX_ARTIFACTS: usize = 20;
const MAX_NAME_BYTES: usize = 100;
const MAX_MODEL_BYTES: usize = 100;
/// How old an answer of the cache may be: if a step does not say it, and at most.
const CACHE_AGE_S: u32 = 30 * 24 * 3600;
const MAX_CACHE_AGE_S: u64 = 366 * 24 * 3600;

/// The kind of work. It selects the instructions and the default order of providers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Code. Also `code`, its older name.
    Codegen,
    /// Judgement. Also `review`, its older name.
    Reasoning,
    /// Documents. Also `text`, its older name.
    #[default]
    Docs,
}

/// The source of the message to the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Topic { topic: String, bullets: Vec<String> },
    Prompt(String),
}

/// Accepted inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub kind: Kind,
    pub source: Source,
    /// Artifacts that the model reads.
    pub artifacts: Vec<ArtifactId>,
    /// File name of the artifact.
    pub name: String,
    pub content_type: ContentType,
    /// What the step makes of the answer.
    pub output: Output,
    /// Ask only this provider.
    pub provider: Option<Provider>,
    /// Ask for this model. `provider` is set then.
    pub model: Option<String>,
    pub parameters: Parameters,
    /// An earlier answer to the same question will do, if it is no older than this.
    pub cache_max_age_s: Option<u32>,
    /// The step asks for the template: no model.
    pub is_offline: bool,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Codegen => "codegen",
            Self::Reasoning => "reasoning",
            Self::Docs => "docs",
        }
    }
}

impl Request {
    pub fn parse(inputs: &Value) -> Result<Self, Vec<Problem>> {
        fields::read(inputs, "inputs", KNOWN, Null::Absent, |fields| {
            let source = source(fields);
            let output = fields.read("output", |value| Output::parse(value.as_str().unwrap_or_default()));
            let output = output.unwrap_or_default();
            let kind = kind(fields).unwrap_or(if output == Output::Text { Kind::Docs } else { Kind::Codegen });
            let artifacts = fields.list("artifacts", MAX_ARTIFACTS, |value| {
                let id = value.as_str().and_then(|text| text.parse().ok());
                id.ok_or_else(|| "must be the id of an artifact (a UUID)".to_owned())
            });
            let mut parameters = Parameters::read(fields);
            let cache_max_age_s = cache(fields);
            let name = name(fields, source.as_ref(), output, &parameters);
            let content_type = content_type(fields, &name, output, &parameters);
            if let Some(schema) = output.schema() {
                parameters.json_schema = Some(schema);
            }
            let is_offline = fields.value("provider").and_then(Value::as_str).map(str::trim) == Some(OFFLINE);
            let (provider, model) = if is_offline { (None, None) } else { target(fields) };
            Some(Self {
                kind,
                source: source?,
                artifacts,
                name,
                content_type,
                output,
                provider,
                model,
                parameters,
                cache_max_age_s,
                is_offline,
            })
        })
    }

    pub(crate) fn is_markdown(&self) -> bool {
        self.content_type.is_markdown()
    }
}

/// Why this is not a valid model name. `None` if it is valid. For Gemini the name becomes part of a URL.
pub(crate) fn model_problem(model: &str, provider: Option<Provider>) -> Option<&'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
    if model.is_empty() || model.len() > MAX_MODEL_BYTES || !model.bytes().all(allowed) {
        return Some("must be 1 to 100 characters of A-Z, a-z, 0-9 and ._-:/");
    }
    if model.contains("::") || model.contains("..") {
        return Some("must not contain :: or ..");
    }
    if provider == Some(Provider::Gemini) && model.contains([':', '/']) {
        return Some("must not contain : or / for gemini");
    }
    None
}

fn source(fields: &mut Fields<'_, '_>) -> Option<Source> {
    let prompt = trimmed(fields, "prompt", MAX_PROMPT_BYTES);
    let topic = trimmed(fields, "topic", MAX_TOPIC_BYTES);
    let bullets = fields.list("bullets", MAX_BULLETS, |bullet| {
        fields::filled(bullet, Most::Bytes(MAX_BULLET_BYTES)).map(|bullet| bullet.trim().to_owned())
    });
    let has = |name| fields.value(name).is_some();
    match (has("prompt"), has("topic")) {
        (true, true) => fields.problem("prompt", "give either a prompt, or a topic with bullets, not both"),
        (true, false) if has("bullets") => fields.problem("bullets", "are only for a topic; put them into the prompt"),
        (false, false) => fields.problem("topic", "is missing: give a topic with bullets, or a prompt"),
        _ => {}
    }
    match (prompt, topic) {
        (Some(prompt), _) => Some(Source::Prompt(prompt.to_owned())),
        (None, Some(topic)) => Some(Source::Topic { topic: topic.to_owned(), bullets }),
        (None, None) => None,
    }
}

fn cache(fields: &mut Fields<'_, '_>) -> Option<u32> {
    match fields.value("cache")? {
        Value::Bool(wanted) => wanted.then_some(CACHE_AGE_S),
        Value::Object(_) => {
            let age = |fields: &mut Fields<'_, '_>| fields.whole("max_age_s", 1..=MAX_CACHE_AGE_S);
            Some(fields.object("cache", &[&["max_age_s"]], age)?.unwrap_or(CACHE_AGE_S))
        }
        _ => {
            fields.problem("cache", "must be true, false, or an object with max_age_s");
            None
        }
    }
}

fn kind(fields: &mut Fields<'_, '_>) -> Option<Kind> {
    fields.read("kind", |value| match value.as_str().map(str::trim) {
        Some("codegen" | "code") => Ok(Kind::Codegen),
        Some("reasoning" | "review") => Ok(Kind::Reasoning),
        Some("docs" | "text") => Ok(Kind::Docs),
        _ => Err("must be codegen, reasoning or docs".to_owned()),
    })
}

fn name(fields: &mut Fields<'_, '_>, source: Option<&Source>, output: Output, parameters: &Parameters) -> String {
    let default = match source {
        _ if output != Output::Text => output.content().map_or("output.md", |(_, name)| name),
        _ if parameters.json_schema.is_some() => "output.json",
        Some(Source::Topic { .. }) => "README.md",
        _ => "output.md",
    };
    let name = trimmed(fields, "name", MAX_NAME_BYTES).unwrap_or(default);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.starts_with('.') || !name.bytes().all(allowed) {
        fields.problem("name", "must be a file name of A-Z, a-z, 0-9 and ._- that does not start with a dot");
    }
    name.to_owned()
}

fn content_type(fields: &mut Fields<'_, '_>, name: &str, output: Output, parameters: &Parameters) -> ContentType {
    if let Some((content_type, _)) = output.content() {
        for (name, is_given) in [
            ("content_type", fields.value("content_type").is_some()),
            ("json_schema", parameters.json_schema.is_some()),
        ] {
            if is_given {
                fields.problem(
                    name,
                    format!("is only for the output text; leave it out for the output {}", output.as_str()),
                );
            }
        }
        return content_type;
    }
    let given = fields.read("content_type", |value| ContentType::parse(value.as_str().unwrap_or_default()));
    let content_type = given.unwrap_or_else(|| ContentType::of_name(name));
    if parameters.json_schema.is_some() && !content_type.is_json() {
        fields.problem("json_schema", "needs the content type application/json, or a name that ends in .json");
    }
    content_type
}

fn target(fields: &mut Fields<'_, '_>) -> (Option<Provider>, Option<String>) {
    let named = fields.read("provider", |value| value.as_str().unwrap_or_default().trim().parse());
    let Some(model) = trimmed(fields, "model", MAX_MODEL_BYTES) else { return (named, None) };
    let is_named = fields.value("provider").is_some();
    let provider = if is_named { named } else { Provider::of_model(model) };
    if provider.is_none() && !is_named {
        fields.problem("model", "is not a known model name; set inputs.provider too");
    }
    if let Some(why) = model_problem(model, provider) {
        fields.problem("model", why);
    }
    (provider, Some(model.to_owned()))
}

fn trimmed<'a>(fields: &mut Fields<'a, '_>, name: &str, max_bytes: usize) -> Option<&'a str> {
    fields.filled(name, Most::Bytes(max_bytes)).map(str::trim)
}
