//! Reads the inputs of a codegen step, and collects every problem in them.

use serde::Serialize;
use serde_json::{Map, Value};
use shared::error::Problem;

use crate::provider::Provider;

const KNOWN: [&str; 7] = ["topic", "bullets", "kind", "prompt", "name", "provider", "model"];
const MAX_TOPIC_BYTES: usize = 4 * 1024;
const MAX_BULLETS: usize = 100;
const MAX_BULLET_BYTES: usize = 4 * 1024;
pub(crate) const MAX_PROMPT_BYTES: usize = 128 * 1024;
const MAX_NAME_BYTES: usize = 100;
const MAX_MODEL_BYTES: usize = 100;

/// The kind of text. It decides which provider is asked first, and with which instructions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    #[default]
    Text,
    Code,
    Review,
}

/// What the model writes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Topic { topic: String, bullets: Vec<String> },
    Prompt(String),
}

/// Accepted inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub kind: Kind,
    pub source: Source,
    /// File name of the artifact.
    pub name: String,
    /// Ask only this provider.
    pub provider: Option<Provider>,
    /// Ask for this model. `provider` is set then.
    pub model: Option<String>,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Code => "code",
            Self::Review => "review",
        }
    }
}

impl Request {
    pub fn parse(inputs: &Value) -> Result<Self, Vec<Problem>> {
        let Value::Object(inputs) = inputs else {
            return Err(vec![Problem::new("inputs", "must be an object")]);
        };
        let mut reader = Reader { inputs, problems: Vec::new() };
        reader.refuse_unknown();
        let source = reader.source();
        let kind = reader.kind();
        let name = reader.name();
        let (provider, model) = reader.target();
        match source {
            Some(source) if reader.problems.is_empty() => Ok(Self { kind, source, name, provider, model }),
            _ => Err(reader.problems),
        }
    }

    /// The media type for the file name. Markup in which a browser would run scripts is plain text.
    pub fn media_type(&self) -> &'static str {
        if self.is_markdown() {
            "text/markdown; charset=utf-8"
        } else if has_extension(&self.name, "json") {
            "application/json"
        } else {
            "text/plain; charset=utf-8"
        }
    }

    pub(crate) fn is_markdown(&self) -> bool {
        has_extension(&self.name, "md")
    }
}

/// Why this cannot be a model's name, if so. For Gemini it becomes part of a URL.
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

struct Reader<'a> {
    inputs: &'a Map<String, Value>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn refuse_unknown(&mut self) {
        for key in self.inputs.keys().filter(|key| !KNOWN.contains(&key.as_str())).take(10) {
            let short: String = key.chars().take(40).collect();
            self.refuse(&short, format!("is not an input of codegen; the inputs are {}", KNOWN.join(", ")));
        }
    }

    fn source(&mut self) -> Option<Source> {
        let prompt = self.text("prompt", MAX_PROMPT_BYTES);
        let topic = self.text("topic", MAX_TOPIC_BYTES);
        let bullets = self.bullets();
        let has = |key| self.inputs.get(key).is_some_and(|value| !value.is_null());
        match (has("prompt"), has("topic")) {
            (true, true) => self.refuse("prompt", "give either a prompt, or a topic with bullets, not both"),
            (true, false) if has("bullets") => self.refuse("bullets", "belong to a topic; a prompt has none"),
            (false, false) => self.refuse("topic", "is missing: give a topic with bullets, or a prompt"),
            _ => {}
        }
        match (prompt, topic) {
            (Some(prompt), _) => Some(Source::Prompt(prompt.to_owned())),
            (None, Some(topic)) => Some(Source::Topic { topic: topic.to_owned(), bullets }),
            (None, None) => None,
        }
    }

    fn bullets(&mut self) -> Vec<String> {
        let items = match self.inputs.get("bullets") {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.refuse("bullets", "must be a list of strings");
                return Vec::new();
            }
        };
        if items.len() > MAX_BULLETS {
            self.refuse("bullets", format!("must be at most {MAX_BULLETS}"));
            return Vec::new();
        }
        let mut bullets = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            if let Some(text) = self.check_text(&format!("bullets[{index}]"), item, MAX_BULLET_BYTES) {
                bullets.push(text.to_owned());
            }
        }
        bullets
    }

    fn kind(&mut self) -> Kind {
        match self.text("kind", 40) {
            None | Some("text") => Kind::Text,
            Some("code") => Kind::Code,
            Some("review") => Kind::Review,
            Some(_) => {
                self.refuse("kind", "must be text, code or review");
                Kind::Text
            }
        }
    }

    fn name(&mut self) -> String {
        let name = self.text("name", MAX_NAME_BYTES).unwrap_or("output.md");
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.starts_with('.') || !name.bytes().all(allowed) {
            self.refuse("name", "must be a file name of A-Z, a-z, 0-9 and ._- that does not start with a dot");
        }
        name.to_owned()
    }

    fn target(&mut self) -> (Option<Provider>, Option<String>) {
        let mut provider = None;
        if let Some(name) = self.text("provider", 40) {
            match name.parse() {
                Ok(known) => provider = Some(known),
                Err(why) => self.refuse("provider", why),
            }
        }
        let Some(model) = self.text("model", MAX_MODEL_BYTES) else { return (provider, None) };
        if provider.is_none() && !self.inputs.contains_key("provider") {
            provider = Provider::of_model(model);
            if provider.is_none() {
                self.refuse("model", "does not tell its provider; name the provider too");
            }
        }
        if let Some(why) = model_problem(model, provider) {
            self.refuse("model", why);
        }
        (provider, Some(model.to_owned()))
    }

    /// The text of an optional input.
    fn text(&mut self, key: &str, max_bytes: usize) -> Option<&'a str> {
        let value = self.inputs.get(key).filter(|value| !value.is_null())?;
        self.check_text(key, value, max_bytes)
    }

    fn check_text<'v>(&mut self, path: &str, value: &'v Value, max_bytes: usize) -> Option<&'v str> {
        let Some(text) = value.as_str() else {
            self.refuse(path, "must be a string");
            return None;
        };
        let trimmed = text.trim();
        if trimmed.is_empty() {
            self.refuse(path, "must not be empty");
        } else if text.len() > max_bytes {
            self.refuse(path, format!("must be at most {max_bytes} bytes"));
        } else {
            return Some(trimmed);
        }
        None
    }

    fn refuse(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(format!("inputs.{path}"), message));
    }
}

fn has_extension(name: &str, extension: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| end.eq_ignore_ascii_case(extension))
}
