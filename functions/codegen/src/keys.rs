//! Provider keys: looked up when a step needs them (the source caches), never shown.

use std::fmt;

use futures::future::BoxFuture;
use serde_json::Value;
use shared::error::Error;

use crate::provider::{PerProvider, Provider};

/// A provider's key. Its `Debug` shows nothing of it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// The keys that are configured; a provider without one is not asked.
#[derive(Debug, Clone, Default)]
pub struct ProviderKeys(PerProvider<Option<ApiKey>>);

/// Looks the keys up, for example in Secrets Manager. `Error::NotFound` means that there are none.
type Load = Box<dyn Fn() -> BoxFuture<'static, Result<ProviderKeys, Error>> + Send + Sync>;

/// Where the keys come from.
pub(crate) struct KeyRing(Load);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

impl ApiKey {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl ProviderKeys {
    /// Reads the secret `nofx/llm`: a JSON object with the members of [`Provider::key_name`]. A member that is absent, null
    /// or blank means no key. What is wrong is told without repeating any of it.
    pub fn from_secret(json: &str) -> Result<Self, Error> {
        let unreadable = |why: &'static str| Error::internal("the secret with the provider keys is unreadable", why);
        let Ok(Value::Object(members)) = serde_json::from_str(json) else {
            return Err(unreadable("not a JSON object"));
        };
        let mut keys = PerProvider::default();
        for provider in Provider::ALL {
            *keys.get_mut(provider) = match members.get(provider.key_name()) {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) if text.trim().is_empty() => None,
                Some(Value::String(text)) if text.trim().bytes().all(|byte| byte.is_ascii_graphic()) => {
                    Some(ApiKey(text.trim().to_owned()))
                }
                Some(_) => return Err(unreadable("a key is not a string of visible ASCII characters")),
            };
        }
        Ok(Self(keys))
    }

    pub(crate) fn get(&self, provider: Provider) -> Option<&ApiKey> {
        self.0.get(provider).as_ref()
    }

    pub(crate) fn is_empty(&self) -> bool {
        Provider::ALL.into_iter().all(|provider| self.get(provider).is_none())
    }
}

impl KeyRing {
    pub(crate) fn new<F>(load: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<ProviderKeys, Error>> + Send + 'static,
    {
        Self(Box::new(move || Box::pin(load())))
    }

    pub(crate) async fn keys(&self) -> Result<ProviderKeys, Error> {
        match (self.0)().await {
            Err(Error::NotFound(_)) => Ok(ProviderKeys::default()),
            looked_up => looked_up,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_keys_are_no_keys() {
        let keys = ProviderKeys::from_secret(r#"{"OPENAI_API_KEY":" ","GEMINI_API_KEY":null,"OTHER":1}"#).unwrap();
        assert!(keys.is_empty());
        let keys = ProviderKeys::from_secret(r#"{"OPENAI_API_KEY":"sk-1\n"}"#).unwrap();
        assert_eq!(keys.get(Provider::OpenAi).map(ApiKey::expose), Some("sk-1"));
    }

    #[test]
    fn neither_debug_nor_a_broken_secret_shows_a_key() {
        let keys = ProviderKeys::from_secret(r#"{"OPENAI_API_KEY":"canary"}"#).unwrap();
        assert!(!format!("{keys:?}").contains("canary"));
        for broken in [r#""canary""#, r#"{"OPENAI_API_KEY":"canary"#, r#"{"OPENAI_API_KEY":["canary"]}"#, "canary"] {
            let error = ProviderKeys::from_secret(broken).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{broken}");
        }
    }
}
