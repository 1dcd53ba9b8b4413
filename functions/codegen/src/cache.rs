//! The cache of answers. A step that asks for it gets the earlier answer to the very same question.

use serde_json::{Value, json};
use shared::domain::CachedAnswer;
use shared::domain::digest::canonical_sha256;
use shared::storage::StepStore;
use shared::telemetry;
use shared::worker::ModelCalls;

use crate::ask::Prompt;
use crate::config::CodegenConfig;
use crate::inputs::Request;
use crate::prompt::sha256;
use crate::provider::Provider;

/// Longer answers are not stored.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The question of one step.
pub(crate) struct Cache<'a> {
    /// What the question is, whoever answers it.
    question: Value,
    config: &'a CodegenConfig,
    max_age_s: u32,
}

impl<'a> Cache<'a> {
    /// `None` unless the step asks for the cache. Artifacts that the inputs name count by their text, which is in the message.
    pub(crate) fn of(request: &Request, inputs: &Value, prompt: Prompt<'_>, config: &'a CodegenConfig) -> Option<Self> {
        let max_age_s = request.cache_max_age_s?;
        let mut inputs = inputs.clone();
        if let Some(inputs) = inputs.as_object_mut() {
            inputs.retain(|name, _| !matches!(name.as_str(), "cache" | "artifacts"));
        }
        let question = json!({
            "inputs": inputs,
            "instructions": sha256(prompt.instructions),
            "message": sha256(prompt.message),
            "max_output_tokens": request.parameters.max_output_tokens.unwrap_or(config.max_output_tokens),
        });
        Some(Self { question, config, max_age_s })
    }

    /// Names the question to one model. 64 hex digits.
    pub(crate) fn key(&self, provider: Provider, model: &str) -> String {
        let server = self.config.base_url(provider).unwrap_or_default();
        let asked = json!({ "question": self.question, "provider": provider, "server": server, "model": model });
        canonical_sha256(&asked).unwrap_or_else(|_| sha256(&asked.to_string()))
    }

    /// The newest answer of this model, with its text. An answer that cannot be read counts as none.
    pub(crate) async fn find(
        &self,
        (provider, model): (Provider, &str),
        calls: &ModelCalls,
        store: &StepStore,
    ) -> Option<(CachedAnswer, String)> {
        let found = match calls.cached(&self.key(provider, model), self.max_age_s).await {
            Ok(found) => found?,
            Err(error) => {
                telemetry::report(&error, "look for an earlier answer");
                return None;
            }
        };
        match store.get(&found.artifact, MAX_BYTES).await {
            Ok(bytes) => String::from_utf8(bytes).ok().map(|text| (found, text)),
            Err(error) => {
                telemetry::report(&error, "read an earlier answer");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CodegenConfig;

    const PROMPT: Prompt<'_> = Prompt { instructions: "Write.", message: "A question" };

    fn key_of(inputs: &Value, prompt: Prompt<'_>, config: &CodegenConfig, model: &str) -> String {
        let request = Request::parse(inputs).unwrap();
        Cache::of(&request, inputs, prompt, config).unwrap().key(Provider::OpenAi, model)
    }

    #[test]
    fn a_key_changes_with_everything_that_the_answer_depends_on_and_with_nothing_else() {
        let (inputs, config) = (json!({ "prompt": "A question", "cache": true }), CodegenConfig::default());
        let key = key_of(&inputs, PROMPT, &config, "m");
        assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()));

        let artifact = "01a22a83-26c3-75d6-bf8e-42ef377862f0";
        for same in [
            json!({ "cache": { "max_age_s": 60 }, "prompt": "A question" }),
            // The message has its text.
            json!({ "prompt": "A question", "cache": true, "artifacts": [artifact] }),
        ] {
            assert_eq!(key_of(&same, PROMPT, &config, "m"), key, "{same}");
        }
        for other in [
            json!({ "prompt": "A question", "cache": true, "name": "other.md" }),
            json!({ "prompt": "A question", "cache": true, "temperature": 0.5 }),
            json!({ "prompt": "A question", "cache": true, "kind": "codegen" }),
        ] {
            assert_ne!(key_of(&other, PROMPT, &config, "m"), key, "{other}");
        }
        assert_ne!(key_of(&inputs, Prompt { message: "Another", ..PROMPT }, &config, "m"), key);
        assert_ne!(key_of(&inputs, Prompt { instructions: "Write more.", ..PROMPT }, &config, "m"), key);
        assert_ne!(key_of(&inputs, PROMPT, &config, "m2"), key);
        let longer = CodegenConfig { max_output_tokens: 99, ..CodegenConfig::default() };
        assert_ne!(key_of(&inputs, PROMPT, &longer, "m"), key);
        let mut elsewhere = CodegenConfig::default();
        elsewhere.base_urls.openai = Some("http://127.0.0.1:9/v1/".to_owned());
        assert_ne!(key_of(&inputs, PROMPT, &elsewhere, "m"), key);
    }

    #[test]
    fn only_steps_that_ask_for_it_have_a_cache() {
        for inputs in [json!({ "prompt": "p" }), json!({ "prompt": "p", "cache": false })] {
            let request = Request::parse(&inputs).unwrap();
            assert!(Cache::of(&request, &inputs, PROMPT, &CodegenConfig::default()).is_none(), "{inputs}");
        }
        for cache in [json!("yes"), json!({ "max_age_s": 0 }), json!({ "max_age": 1 }), json!(7)] {
            let problems = Request::parse(&json!({ "prompt": "p", "cache": cache })).unwrap_err();
            assert!(problems[0].path.starts_with("inputs.cache"), "{problems:?}");
        }
    }
}
