//! The operator's settings. Only `shared::config` reads the environment.

use std::time::Duration;

use shared::config::LlmConfig;
use shared::domain::plan::Limits;
use shared::error::Error;

use crate::inputs::{Kind, model_problem};
use crate::provider::{Api, PerProvider, Provider, Target};

/// How codegen calls models. `Default` applies if nothing is configured.
#[derive(Debug, Clone)]
pub struct CodegenConfig {
    /// `LLM_ORDER`: what to ask, best first, if neither the tenant's policy nor the step says it. `None` means the order
    /// of [`default_order`].
    pub order: Option<Vec<Target>>,
    /// If no key is configured, fill in a template instead of failing. For laptops and smoke tests.
    pub allow_template: bool,
    /// Replaces a provider's base URL, including the version path: `https://gateway.example/v1`.
    pub base_urls: PerProvider<Option<String>>,
    /// What OpenAI's base URL speaks: `Responses` or `Chat`.
    pub openai_api: Api,
    /// The model to ask if a step names none. Empty if there is none.
    pub models: PerProvider<String>,
    /// Timeout of one request. The step's own timeout is usually shorter.
    pub request_timeout: Duration,
    pub connect_timeout: Duration,
    /// Whether answers are streamed.
    pub stream: bool,
    /// How long a streamed answer may pause.
    pub idle_timeout: Duration,
    /// How often people who watch see what a streamed answer has so far.
    pub progress_period: Duration,
    /// Limits the tokens of an answer, including reasoning, and so its cost. A step can set its own.
    pub max_output_tokens: u32,
    /// Requests to one model for one attempt of a step, including the first.
    pub tries_per_model: u32,
    /// Delay before the second try. Each further try doubles it. Jitter shortens it by up to half.
    pub backoff: Duration,
    /// Limit on a step's outputs in bytes of JSON. The outputs contain the text if it fits.
    pub outputs_bytes: usize,
}

impl Default for CodegenConfig {
    fn default() -> Self {
        Self {
            order: None,
            allow_template: false,
            base_urls: PerProvider::default(),
            openai_api: Api::Responses,
            models: PerProvider {
                openai: "gpt-6-luna".to_owned(),
                anthropic: "claude-sonnet-5-5".to_owned(),
                gemini: "gemini-3.8-flash".to_owned(),
                compatible: String::new(),
            },
            request_timeout: Duration::from_mins(4),
            connect_timeout: Duration::from_secs(5),
            stream: true,
            idle_timeout: Duration::from_mins(1),
            progress_period: Duration::from_secs(2),
            max_output_tokens: 16_384,
            tries_per_model: 3,
            backoff: Duration::from_millis(500),
            outputs_bytes: Limits::default().outputs_bytes,
        }
    }
}

/// The order in which providers are asked if nobody sets another. An OpenAI-compatible server comes last:
///
/// | kind        | first     | then      | then      |
/// |-------------|-----------|-----------|-----------|
/// | `codegen`   | openai    | anthropic | gemini    |
/// | `reasoning` | anthropic | openai    | gemini    |
/// | `docs`      | gemini    | openai    | anthropic |
pub fn default_order(kind: Kind) -> [Provider; 4] {
    match kind {
        Kind::Codegen => [Provider::OpenAi, Provider::Anthropic, Provider::Gemini, Provider::Compatible],
        Kind::Reasoning => [Provider::Anthropic, Provider::OpenAi, Provider::Gemini, Provider::Compatible],
        Kind::Docs => [Provider::Gemini, Provider::OpenAi, Provider::Anthropic, Provider::Compatible],
    }
}

impl CodegenConfig {
    /// Reads the configuration. An unknown name fails the start of the function, not a step.
    pub fn from_llm(llm: &LlmConfig) -> Result<Self, Error> {
        let mut config = Self { allow_template: llm.allow_template, ..Self::default() };
        config.order = Target::parse_order(llm.order.as_deref().unwrap_or_default())
            .map_err(|problem| Error::invalid("LLM_ORDER", problem))?;
        if let Some(seconds) = llm.request_timeout_s {
            config.request_timeout = Duration::from_secs(seconds.into());
        }
        if let Some(seconds) = llm.idle_timeout_s {
            config.idle_timeout = Duration::from_secs(seconds.into());
        }
        config.openai_api = match llm.openai_api.as_deref() {
            None | Some("responses") => Api::Responses,
            Some("chat") => Api::Chat,
            Some(_) => return Err(Error::invalid("OPENAI_API", "must be responses or chat")),
        };
        config.stream = llm.stream.unwrap_or(config.stream);
        config.max_output_tokens = llm.max_output_tokens.unwrap_or(config.max_output_tokens);
        config.tries_per_model = llm.tries.unwrap_or(config.tries_per_model);
        for (name, base_url, model) in &llm.providers {
            let provider = name.parse().map_err(|why: String| Error::invalid(*name, why))?;
            config.base_urls.get_mut(provider).clone_from(base_url);
            if let Some(model) = model {
                config.models.get_mut(provider).clone_from(model);
            }
        }
        Ok(config)
    }

    /// Validates the configuration, and completes base URLs.
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        for provider in Provider::ALL {
            if let Some(url) = self.base_urls.get_mut(provider) {
                *url = base_url(url).map_err(|why| Error::invalid(format!("base_urls.{provider}"), why))?;
            }
            let model = self.models.get(provider);
            if let Some(why) = model_problem(model, Some(provider)).filter(|_| !model.is_empty()) {
                return Err(Error::invalid(format!("models.{provider}"), why));
            }
        }
        if self.order.as_ref().is_some_and(Vec::is_empty) {
            self.order = None;
        }
        self.tries_per_model = self.tries_per_model.clamp(1, 10);
        Ok(self)
    }

    /// Where a provider is. `None` if it has no URL.
    pub(crate) fn base_url(&self, provider: Provider) -> Option<&str> {
        self.base_urls.get(provider).as_deref().or(provider.default_base_url())
    }

    /// Whether a provider has a URL, and a model to ask if a step names none.
    pub(crate) fn has_default(&self, provider: Provider) -> bool {
        self.missing_setting(provider, self.models.get(provider)).is_none()
    }

    /// The setting without which a provider cannot be asked for this model. Only one provider has no defaults.
    pub(crate) fn missing_setting(&self, provider: Provider, model: &str) -> Option<&'static str> {
        if self.base_url(provider).is_none() {
            return Some("OPENAI_COMPATIBLE_BASE_URL");
        }
        model.is_empty().then_some("OPENAI_COMPATIBLE_MODEL")
    }

    /// What a provider speaks.
    pub(crate) fn api(&self, provider: Provider) -> Api {
        match provider {
            Provider::OpenAi => self.openai_api,
            Provider::Anthropic => Api::Messages,
            Provider::Gemini => Api::GenerateContent,
            Provider::Compatible => Api::Chat,
        }
    }
}

/// Adds the trailing slash that joining needs. The error does not repeat the URL, because it may contain a password.
fn base_url(text: &str) -> Result<String, &'static str> {
    let url = reqwest::Url::parse(text.trim()).map_err(|_| "is not a URL")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("must be an http or https URL");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user name or password; put keys into the secret");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment");
    }
    let mut text = url.to_string();
    if !text.ends_with('/') {
        text.push('/');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_in_the_configuration_fails_the_start() {
        let llm = |order: &str| LlmConfig {
            secret_id: "nofx/llm".to_owned(),
            order: Some(order.to_owned()),
            allow_template: true,
            request_timeout_s: Some(7),
            max_output_tokens: Some(99),
            stream: Some(false),
            idle_timeout_s: Some(3),
            openai_api: Some("chat".to_owned()),
            tries: None,
            providers: vec![
                ("anthropic", Some("http://127.0.0.1:9/v1".to_owned()), None),
                ("gemini", None, Some("g-1".to_owned())),
            ],
        };
        let config = CodegenConfig::from_llm(&llm("gemini,anthropic")).unwrap();
        assert_eq!(config.order, Some(vec![Provider::Gemini.into(), Provider::Anthropic.into()]));
        assert_eq!((config.stream, config.idle_timeout, config.openai_api), (false, Duration::from_secs(3), Api::Chat));
        assert_eq!((config.request_timeout, config.max_output_tokens), (Duration::from_secs(7), 99));
        assert_eq!(config.tries_per_model, CodegenConfig::default().tries_per_model);
        assert_eq!((config.models.gemini.as_str(), config.allow_template), ("g-1", true));
        assert_eq!(config.models.anthropic, CodegenConfig::default().models.anthropic);
        assert_eq!(config.base_urls.anthropic.as_deref(), Some("http://127.0.0.1:9/v1"));
        assert!(CodegenConfig::from_llm(&llm("gemini,antropic")).is_err());
        let api = LlmConfig { openai_api: Some("grpc".to_owned()), ..llm("gemini") };
        assert!(CodegenConfig::from_llm(&api).is_err());
    }

    #[test]
    fn a_base_url_gets_a_trailing_slash_and_a_password_is_rejected_without_being_shown() {
        assert_eq!(base_url("http://127.0.0.1:9/v1").as_deref(), Ok("http://127.0.0.1:9/v1/"));
        let refused = base_url("https://user:canary@gateway.example/v1").unwrap_err();
        assert!(!refused.contains("canary"));
        assert!(base_url("file:///etc/passwd").is_err());
        assert!(base_url("https://gateway.example/v1?key=1").is_err());
    }
}
