//! Calls of other Lambda functions, with an answer.

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_lambda::primitives::Blob;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// The functions that a function may call.
#[derive(Clone)]
pub struct Functions {
    client: aws_sdk_lambda::Client,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// Lambda cannot be reached, or refuses the call.
    #[error(transparent)]
    Unavailable(Error),
    /// The function ended without an answer: it crashed, was killed, or ran out of time or memory. The text is its own
    /// report, so it is untrusted.
    #[error("the function ended without an answer: {0}")]
    Ended(String),
}

impl Functions {
    pub fn new(sdk: &SdkConfig) -> Self {
        // A call may take as long as the function that is called, and must not be repeated.
        let config = aws_sdk_lambda::config::Builder::from(sdk)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        Self { client: aws_sdk_lambda::Client::from_conf(config.build()) }
    }

    /// Calls a function and waits for its answer. There is no retry: the call may have had an effect.
    pub async fn invoke<T: DeserializeOwned>(&self, name: &str, request: &impl Serialize) -> Result<T, InvokeError> {
        const MAX_REPORT: usize = 500;
        let unavailable = |context, error| InvokeError::Unavailable(Error::internal(context, error));
        let payload = serde_json::to_vec(request).map_err(|error| unavailable("write a request", error))?;
        let answer =
            self.client.invoke().function_name(name).payload(Blob::new(payload)).send().await.map_err(|error| {
                InvokeError::Unavailable(Error::unavailable("the function that runs commands", error))
            })?;
        let payload = answer.payload().map(Blob::as_ref).unwrap_or_default();
        if answer.function_error().is_some() {
            let report: String = String::from_utf8_lossy(payload).chars().take(MAX_REPORT).collect();
            return Err(InvokeError::Ended(report));
        }
        serde_json::from_slice(payload).map_err(|error| InvokeError::Ended(format!("its answer is invalid: {error}")))
    }
}
