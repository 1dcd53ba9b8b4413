//! Provider keys. Each step looks them up (the secret store caches them). They are never shown.

use std::fmt;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use serde_json::Value;
use shared::error::Error;
use shared::telemetry;

use crate::provider::{PerProvider, Provider};

/// Timeout for looking up the keys.
pub(crate) const KEYS_TIMEOUT: Duration = Duration::from_secs(10);

/// Shorter keys are no secrets.
const MIN_SECRET_BYTES: usize = 8;

/// A provider's key. `Debug` does not show it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// The configured keys. A provider without a key is not asked.
#[derive(Debug, Clone, Default)]
pub struct ProviderKeys(PerProvider<KeyEntry>);

/// A provider's entry in the secret.
#[derive(Debug, Clone, Default)]
enum KeyEntry {
    #[default]
    Missing,
    /// The value is not a valid key. This disables only this provider.
    Malformed,
    Key(ApiKey),
}

/// Looks up the keys, for example in Secrets Manager. With an instant, the result must have been read after it.
type Load = Box<dyn Fn(Option<Instant>) -> BoxFuture<'static, Result<ProviderKeys, Error>> + Send + Sync>;

/// The source of the keys.
pub(crate) struct KeySource(Load);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

impl ApiKey {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// The key, if it is one. Local servers are often given a word such as `ollama`, which answers may contain.
    pub(crate) fn secret(&self) -> Option<&str> {
        (self.0.len() >= MIN_SECRET_BYTES).then_some(self.0.as_str())
    }
}

impl ProviderKeys {
    /// Parses the secret: a JSON object with a member [`Provider::key_name`] for each provider. An absent, null or blank
    /// member means no key. An invalid one disables its provider. Errors contain no part of the secret.
    pub fn from_secret(json: &str) -> Result<Self, Error> {
        let Ok(Value::Object(members)) = serde_json::from_str(json) else {
            return Err(Error::internal("the secret with the provider keys is unreadable", "not a JSON object"));
        };
        let mut keys = PerProvider::default();
        for provider in Provider::ALL {
            *keys.get_mut(provider) = match members.get(provider.key_name()) {
                None | Some(Value::Null) => KeyEntry::Missing,
                Some(Value::String(text)) if text.trim().is_empty() => KeyEntry::Missing,
                Some(Value::String(text)) if text.trim().bytes().all(|byte| byte.is_ascii_graphic()) => {
                    KeyEntry::Key(ApiKey(text.trim().to_owned()))
                }
                Some(_) => KeyEntry::Malformed,
            };
        }
        Ok(Self(keys))
    }

    pub(crate) fn get(&self, provider: Provider) -> Option<&ApiKey> {
        match self.0.get(provider) {
            KeyEntry::Key(key) => Some(key),
            KeyEntry::Missing | KeyEntry::Malformed => None,
        }
    }

    /// Whether no key is configured, not even a malformed one.
    pub(crate) fn is_empty(&self) -> bool {
        Provider::ALL.into_iter().all(|provider| matches!(self.0.get(provider), KeyEntry::Missing))
    }

    pub(crate) fn is_malformed(&self, provider: Provider) -> bool {
        matches!(self.0.get(provider), KeyEntry::Malformed)
    }

    /// Why a provider has no usable key.
    pub(crate) fn problem(&self, provider: Provider) -> String {
        let name = provider.key_name();
        match self.0.get(provider) {
            KeyEntry::Malformed => format!("{name} is not a string of visible ASCII characters"),
            KeyEntry::Missing | KeyEntry::Key(_) => format!("{name} is not configured"),
        }
    }
}

impl KeySource {
    pub(crate) fn new<F>(load: impl Fn(Option<Instant>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<ProviderKeys, Error>> + Send + 'static,
    {
        Self(Box::new(move |read_after| Box::pin(load(read_after))))
    }

    /// The cached keys if they are usable, else newly read ones. So a corrected secret works at once.
    pub(crate) async fn keys(&self, is_usable: impl Fn(&ProviderKeys) -> bool) -> Result<ProviderKeys, Error> {
        let started = Instant::now();
        match self.load(None).await {
            Ok(keys) if is_usable(&keys) => Ok(keys),
            Err(error @ Error::Unavailable { .. }) => Err(error),
            // There is no key, it is malformed, or a provider rejected it before.
            Ok(_) | Err(_) => self.load(Some(started)).await,
        }
    }

    async fn load(&self, read_after: Option<Instant>) -> Result<ProviderKeys, Error> {
        match (self.0)(read_after).await {
            Err(Error::NotFound(_)) => Ok(ProviderKeys::default()),
            result => result,
        }
    }
}

/// The keys of one step.
pub(crate) struct StepKeys<'a> {
    source: &'a KeySource,
    current: ProviderKeys,
    refreshed: bool,
}

impl<'a> StepKeys<'a> {
    pub(crate) fn new(source: &'a KeySource, current: ProviderKeys) -> Self {
        Self { source, current, refreshed: false }
    }

    pub(crate) fn current(&self) -> &ProviderKeys {
        &self.current
    }

    /// A replacement for a key that the provider rejected in a request at `rejected_at`. The secret may have been
    /// rotated, so this reads it again, once per step. `None` if the key is still the same.
    pub(crate) async fn refresh(
        &mut self,
        provider: Provider,
        rejected: &ApiKey,
        rejected_at: Instant,
    ) -> Option<ApiKey> {
        if !self.refreshed {
            self.refreshed = true;
            match self.source.load(Some(rejected_at)).await {
                Ok(keys) => self.current = keys,
                Err(error) => telemetry::report(&error, "read the provider keys again"),
            }
        }
        self.current.get(provider).filter(|key| *key != rejected).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_key_counts_as_missing() {
        let keys = ProviderKeys::from_secret(r#"{"OPENAI_API_KEY":" ","GEMINI_API_KEY":null,"OTHER":1}"#).unwrap();
        assert!(keys.is_empty());
        let keys = ProviderKeys::from_secret(r#"{"OPENAI_API_KEY":"sk-1\n"}"#).unwrap();
        assert_eq!(keys.get(Provider::OpenAi).map(ApiKey::expose), Some("sk-1"));
    }

    #[test]
    fn debug_output_and_errors_never_show_a_key() {
        let keys = ProviderKeys::from_secret(r#"{"OPENAI_API_KEY":"canary"}"#).unwrap();
        assert!(!format!("{keys:?}").contains("canary"));
        for broken in [r#""canary""#, r#"{"OPENAI_API_KEY":"canary"#, r#"["canary"]"#, "canary"] {
            let error = ProviderKeys::from_secret(broken).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{broken}");
        }
    }

    #[test]
    fn a_malformed_key_disables_only_its_provider() {
        for malformed in [r#"["canary"]"#, "7", r#""canary key""#, r#""canaryü""#, r#"{"canary":1}"#] {
            let json = format!(r#"{{"OPENAI_API_KEY":{malformed},"GEMINI_API_KEY":"g"}}"#);
            let keys = ProviderKeys::from_secret(&json).unwrap();
            assert!(keys.get(Provider::OpenAi).is_none() && keys.get(Provider::Gemini).is_some(), "{malformed}");
            let problem = keys.problem(Provider::OpenAi);
            assert!(problem.contains("OPENAI_API_KEY is not a string") && !problem.contains("canary"), "{problem}");
            assert!(!ProviderKeys::from_secret(&format!(r#"{{"OPENAI_API_KEY":{malformed}}}"#)).unwrap().is_empty());
        }
    }
}
