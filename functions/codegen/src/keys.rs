//! Provider keys. They are looked up when a step needs them (the source caches them), and never shown.

use std::fmt;
use std::time::Instant;

use futures::future::BoxFuture;
use serde_json::Value;
use shared::error::Error;
use shared::telemetry;

use crate::provider::{PerProvider, Provider};

/// A provider's key. `Debug` does not show it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// The configured keys. A provider without a key is not asked.
#[derive(Debug, Clone, Default)]
pub struct ProviderKeys(PerProvider<Member>);

/// A provider's member of the secret.
#[derive(Debug, Clone, Default)]
enum Member {
    #[default]
    Missing,
    /// A value that cannot be a key. It disables only this provider.
    Malformed,
    Key(ApiKey),
}

/// Looks up the keys, for example in Secrets Manager. With an instant, they must have been read after it.
type Load = Box<dyn Fn(Option<Instant>) -> BoxFuture<'static, Result<ProviderKeys, Error>> + Send + Sync>;

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
    /// Reads the text of the secret: a JSON object whose members are named by [`Provider::key_name`]. A member that is
    /// absent, null or blank means that there is no key. One that cannot be a key disables its provider. Errors never
    /// repeat any part of the text.
    pub fn from_secret(json: &str) -> Result<Self, Error> {
        let Ok(Value::Object(members)) = serde_json::from_str(json) else {
            return Err(Error::internal("the secret with the provider keys is unreadable", "not a JSON object"));
        };
        let mut keys = PerProvider::default();
        for provider in Provider::ALL {
            *keys.get_mut(provider) = match members.get(provider.key_name()) {
                None | Some(Value::Null) => Member::Missing,
                Some(Value::String(text)) if text.trim().is_empty() => Member::Missing,
                Some(Value::String(text)) if text.trim().bytes().all(|byte| byte.is_ascii_graphic()) => {
                    Member::Key(ApiKey(text.trim().to_owned()))
                }
                Some(_) => Member::Malformed,
            };
        }
        Ok(Self(keys))
    }

    pub(crate) fn get(&self, provider: Provider) -> Option<&ApiKey> {
        match self.0.get(provider) {
            Member::Key(key) => Some(key),
            Member::Missing | Member::Malformed => None,
        }
    }

    /// Whether no key is configured, not even a malformed one.
    pub(crate) fn is_empty(&self) -> bool {
        Provider::ALL.into_iter().all(|provider| matches!(self.0.get(provider), Member::Missing))
    }

    /// Why a provider has no key.
    pub(crate) fn problem(&self, provider: Provider) -> String {
        let name = provider.key_name();
        match self.0.get(provider) {
            Member::Malformed => format!("{name} is not a string of visible ASCII characters"),
            Member::Missing | Member::Key(_) => format!("{name} is not configured"),
        }
    }
}

impl KeyRing {
    pub(crate) fn new<F>(load: impl Fn(Option<Instant>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<ProviderKeys, Error>> + Send + 'static,
    {
        Self(Box::new(move |moment| Box::pin(load(moment))))
    }

    /// The cached keys if they `suffice`, else freshly read ones. So an operator who corrects the secret need not wait
    /// for the cache.
    pub(crate) async fn keys(&self, suffice: impl Fn(&ProviderKeys) -> bool) -> Result<ProviderKeys, Error> {
        let asked = Instant::now();
        match self.load(None).await {
            Ok(keys) if suffice(&keys) => Ok(keys),
            Err(error @ Error::Unavailable { .. }) => Err(error),
            // No key, a malformed one, or one that was refused before.
            Ok(_) | Err(_) => self.load(Some(asked)).await,
        }
    }

    async fn load(&self, moment: Option<Instant>) -> Result<ProviderKeys, Error> {
        match (self.0)(moment).await {
            Err(Error::NotFound(_)) => Ok(ProviderKeys::default()),
            looked_up => looked_up,
        }
    }
}

/// The keys of one step.
pub(crate) struct StepKeys<'a> {
    ring: &'a KeyRing,
    current: ProviderKeys,
    renewed: bool,
}

impl<'a> StepKeys<'a> {
    pub(crate) fn new(ring: &'a KeyRing, current: ProviderKeys) -> Self {
        Self { ring, current, renewed: false }
    }

    pub(crate) fn current(&self) -> &ProviderKeys {
        &self.current
    }

    /// Another key instead of one that was refused in a request at `moment`, if the secret holds one now. The secret
    /// may have been rotated, so it is read again, once per step.
    pub(crate) async fn renew(&mut self, provider: Provider, refused: &ApiKey, moment: Instant) -> Option<ApiKey> {
        if !self.renewed {
            self.renewed = true;
            match self.ring.load(Some(moment)).await {
                Ok(keys) => self.current = keys,
                Err(error) => telemetry::report(&error, "read the provider keys again"),
            }
        }
        self.current.get(provider).filter(|key| *key != refused).cloned()
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
        for broken in [r#""canary""#, r#"{"OPENAI_API_KEY":"canary"#, r#"["canary"]"#, "canary"] {
            let error = ProviderKeys::from_secret(broken).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{broken}");
        }
    }

    #[test]
    fn a_malformed_member_disables_its_own_provider_alone() {
        for malformed in [r#"["canary"]"#, "7", r#""canary key""#, r#""canaryü""#, r#"{"canary":1}"#] {
            let json = format!(r#"{{"OPENAI_API_KEY":{malformed},"GEMINI_API_KEY":"g"}}"#);
            let keys = ProviderKeys::from_secret(&json).unwrap();
            assert!(keys.get(Provider::OpenAi).is_none() && keys.get(Provider::Gemini).is_some(), "{malformed}");
            let told = keys.problem(Provider::OpenAi);
            assert!(told.contains("OPENAI_API_KEY is not a string") && !told.contains("canary"), "{told}");
            assert!(!ProviderKeys::from_secret(&format!(r#"{{"OPENAI_API_KEY":{malformed}}}"#)).unwrap().is_empty());
        }
    }
}
