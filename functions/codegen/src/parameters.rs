//! The parameters of a step: what each wire can express of them, and their limits.

use serde::Serialize;
use serde_json::Value;
use shared::domain::bounds::json_bytes;
use shared::domain::fields::Fields;

use crate::provider::Provider;

const MAX_OUTPUT_TOKENS: u64 = 1_000_000;
const MAX_SCHEMA_BYTES: usize = 16 * 1024;

/// How the model shall answer. `None` leaves it to the deployment or the provider.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Parameters {
    /// Limits the tokens of the answer, including reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
    /// 0 to 2. Anthropic's ends at 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<Effort>,
    /// The JSON schema of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<Value>,
}

/// How much a model reasons. Every wire has these three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    Low,
    Medium,
    High,
}

impl Effort {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl Parameters {
    pub(crate) fn read(fields: &mut Fields<'_, '_>) -> Self {
        Self {
            max_output_tokens: fields.whole("max_output_tokens", 1..=MAX_OUTPUT_TOKENS),
            temperature: fields.read("temperature", |value| {
                let number = value.as_f64().filter(|number| (0.0..=2.0).contains(number));
                number.ok_or_else(|| "must be a number from 0 to 2".to_owned())
            }),
            reasoning_effort: fields.read("reasoning_effort", |value| match value.as_str().map(str::trim) {
                Some("low") => Ok(Effort::Low),
                Some("medium") => Ok(Effort::Medium),
                Some("high") => Ok(Effort::High),
                _ => Err("must be low, medium or high".to_owned()),
            }),
            json_schema: fields.read("json_schema", |value| {
                if value.as_object().is_none_or(|schema| schema.get("type") != Some(&Value::from("object"))) {
                    return Err("must be a JSON schema with the type object".to_owned());
                }
                if json_bytes(value) > MAX_SCHEMA_BYTES {
                    return Err(format!("must be at most {MAX_SCHEMA_BYTES} bytes"));
                }
                Ok(value.clone())
            }),
        }
    }

    /// Why a provider cannot be asked with these parameters. `None` if it can.
    pub(crate) fn problem(&self, provider: Provider) -> Option<&'static str> {
        let too_hot = provider == Provider::Anthropic && self.temperature.is_some_and(|temperature| temperature > 1.0);
        too_hot.then_some("its temperature ends at 1")
    }
}
