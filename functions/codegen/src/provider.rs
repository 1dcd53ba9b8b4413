//! Model providers and their constants.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::inputs::model_problem;

/// A model provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    #[serde(rename = "openai")]
    OpenAi,
    Anthropic,
    Gemini,
    /// A server with OpenAI's chat completions, such as a local model's. It has no default URL and no default model.
    #[serde(rename = "openai_compatible")]
    Compatible,
}

/// The format of requests and answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's Responses.
    #[default]
    Responses,
    /// OpenAI's chat completions, which most other servers speak.
    Chat,
    /// Anthropic's Messages.
    Messages,
    /// Gemini's `generateContent`.
    GenerateContent,
}

/// One value for each provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerProvider<T> {
    pub openai: T,
    pub anthropic: T,
    pub gemini: T,
    pub compatible: T,
}

/// An entry of an order: a provider, and a model if it is not the deployment's. Written `provider` or `provider/model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub provider: Provider,
    pub model: Option<String>,
}

impl Provider {
    pub const ALL: [Self; 4] = [Self::OpenAi, Self::Anthropic, Self::Gemini, Self::Compatible];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Compatible => "openai_compatible",
        }
    }

    /// Name of the provider's key in the secret.
    pub fn key_name(self) -> &'static str {
        match self {
            Self::OpenAi => "OPENAI_API_KEY",
            Self::Anthropic => "ANTHROPIC_API_KEY",
            Self::Gemini => "GEMINI_API_KEY",
            Self::Compatible => "OPENAI_COMPATIBLE_API_KEY",
        }
    }

    /// Whether requests need a key. A local server usually takes none.
    pub(crate) fn needs_key(self) -> bool {
        self != Self::Compatible
    }

    /// The base URL if none is configured. It includes the API's version and ends with a slash.
    pub(crate) fn default_base_url(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("https://api.openai.com/v1/"),
            Self::Anthropic => Some("https://api.anthropic.com/v1/"),
            Self::Gemini => Some("https://generativelanguage.googleapis.com/v1beta/"),
            Self::Compatible => None,
        }
    }

    /// Guesses the provider of a model, for inputs that name only a model.
    pub(crate) fn of_model(model: &str) -> Option<Self> {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| model.starts_with(prefix));
        if starts(&["gpt-", "chatgpt-", "codex-", "o1", "o3", "o4"]) {
            Some(Self::OpenAi)
        } else if starts(&["claude-"]) {
            Some(Self::Anthropic)
        } else if starts(&["gemini-"]) {
            Some(Self::Gemini)
        } else {
            None
        }
    }
}

impl Target {
    /// Reads `LLM_ORDER`: entries separated by commas. `None` if it is blank.
    pub fn parse_order(text: &str) -> Result<Option<Vec<Self>>, String> {
        let mut order = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let target = entry.parse()?;
            if !order.contains(&target) {
                order.push(target);
            }
        }
        Ok((!order.is_empty()).then_some(order))
    }
}

impl From<Provider> for Target {
    fn from(provider: Provider) -> Self {
        Self { provider, model: None }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(entry: &str) -> Result<Self, String> {
        let Some((provider, model)) = entry.split_once('/') else { return Ok(Self::from(entry.parse::<Provider>()?)) };
        let provider = provider.trim().parse()?;
        let model = model.trim();
        match model_problem(model, Some(provider)) {
            Some(why) => Err(format!("the model of {provider} {why}")),
            None => Ok(Self { provider, model: Some(model.to_owned()) }),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|provider| provider.as_str().eq_ignore_ascii_case(name))
            .ok_or_else(|| "unknown provider; use openai, anthropic, gemini or openai_compatible".to_owned())
    }
}

impl<T> PerProvider<T> {
    pub fn get(&self, provider: Provider) -> &T {
        match provider {
            Provider::OpenAi => &self.openai,
            Provider::Anthropic => &self.anthropic,
            Provider::Gemini => &self.gemini,
            Provider::Compatible => &self.compatible,
        }
    }

    pub fn get_mut(&mut self, provider: Provider) -> &mut T {
        match provider {
            Provider::OpenAi => &mut self.openai,
            Provider::Anthropic => &mut self.anthropic,
            Provider::Gemini => &mut self.gemini,
            Provider::Compatible => &mut self.compatible,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_may_have_blanks_duplicates_and_models_but_no_unknown_name() {
        let order = Target::parse_order(" gemini, OpenAI,,gemini , anthropic/claude-x,openai_compatible/qwen/qwen3 ");
        let named = |provider, model: &str| Target { provider, model: Some(model.to_owned()) };
        let expected = vec![
            Target::from(Provider::Gemini),
            Target::from(Provider::OpenAi),
            named(Provider::Anthropic, "claude-x"),
            named(Provider::Compatible, "qwen/qwen3"),
        ];
        assert_eq!(order, Ok(Some(expected)));
        assert_eq!(Target::parse_order(" , "), Ok(None));
        for wrong in ["openai,antropic", "openai/", "openai/a b", "gemini/a/b"] {
            assert!(Target::parse_order(wrong).is_err(), "{wrong}");
        }
    }
}
