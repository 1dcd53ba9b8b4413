//! Model providers and their constants.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A model provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    #[serde(rename = "openai")]
    OpenAi,
    Anthropic,
    Gemini,
}

/// One value for each provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerProvider<T> {
    pub openai: T,
    pub anthropic: T,
    pub gemini: T,
}

impl Provider {
    pub const ALL: [Self; 3] = [Self::OpenAi, Self::Anthropic, Self::Gemini];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    /// Name of the provider's key in the secret.
    pub fn key_name(self) -> &'static str {
        match self {
            Self::OpenAi => "OPENAI_API_KEY",
            Self::Anthropic => "ANTHROPIC_API_KEY",
            Self::Gemini => "GEMINI_API_KEY",
        }
    }

    /// The base URL if none is configured. It includes the API's version and ends with a slash.
    pub(crate) fn default_base_url(self) -> &'static str {
        match self {
            Self::OpenAi => "https://api.openai.com/v1/",
            Self::Anthropic => "https://api.anthropic.com/v1/",
            Self::Gemini => "https://generativelanguage.googleapis.com/v1beta/",
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

    /// Reads `LLM_ORDER`: names separated by commas. `None` if it is blank.
    pub fn parse_order(text: &str) -> Result<Option<Vec<Self>>, String> {
        let mut order = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let provider = name.parse()?;
            if !order.contains(&provider) {
                order.push(provider);
            }
        }
        Ok((!order.is_empty()).then_some(order))
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
            .ok_or_else(|| "unknown provider; use openai, anthropic or gemini".to_owned())
    }
}

impl<T> PerProvider<T> {
    pub fn get(&self, provider: Provider) -> &T {
        match provider {
            Provider::OpenAi => &self.openai,
            Provider::Anthropic => &self.anthropic,
            Provider::Gemini => &self.gemini,
        }
    }

    pub fn get_mut(&mut self, provider: Provider) -> &mut T {
        match provider {
            Provider::OpenAi => &mut self.openai,
            Provider::Anthropic => &mut self.anthropic,
            Provider::Gemini => &mut self.gemini,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_may_have_blanks_and_duplicates_but_no_unknown_name() {
        let order = Provider::parse_order(" gemini, OpenAI,,gemini ");
        assert_eq!(order, Ok(Some(vec![Provider::Gemini, Provider::OpenAi])));
        assert_eq!(Provider::parse_order(" , "), Ok(None));
        assert!(Provider::parse_order("openai,antropic").is_err());
    }
}
