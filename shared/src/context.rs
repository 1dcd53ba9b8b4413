//! What a warm function keeps between invocations: configuration, pool and clients. Each connects on first use.

use std::sync::Arc;
use std::time::Duration;

use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::config::{Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation};

use crate::config::{ArtifactsConfig, Config};
use crate::db::Database;
use crate::error::Error;
use crate::queue::Queue;
use crate::secrets::Secrets;
use crate::signing::Signer;
use crate::storage::Storage;

/// Configuration, pool and clients of a function.
#[derive(Clone)]
pub struct Ctx {
    pub config: Config,
    pub db: Database,
    pub queue: Queue,
    pub storage: Storage,
    pub secrets: Secrets,
    /// Signs decisions about gates.
    pub decisions: Arc<Signer>,
    /// For the clients that only one function needs.
    pub sdk: Arc<SdkConfig>,
}

/// Longest time of a statement of a request. With the wait for a connection and a cancellation it ends before the
/// gateway's 29 s.
const REQUEST_STATEMENT_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait of a request for AWS: to connect, for one answer, and with repeated tries.
const REQUEST_CONNECT: Duration = Duration::from_secs(1);
const REQUEST_ATTEMPT: Duration = Duration::from_secs(2);
const REQUEST_OPERATION: Duration = Duration::from_secs(4);

impl Ctx {
    /// Reads the configuration from the environment.
    pub async fn from_env() -> Result<Self, Error> {
        Self::for_connections(1).await
    }

    /// The same, with a pool of at least `min` connections.
    pub async fn for_connections(min: u32) -> Result<Self, Error> {
        Self::from_env_with(&aws_config::load_defaults(BehaviorVersion::latest()).await, min).await
    }

    /// The same, for a function that answers requests. A dependency that hangs must not use up the time in which the
    /// function can say so.
    pub async fn for_requests() -> Result<Self, Error> {
        let sdk = aws_config::load_defaults(BehaviorVersion::latest()).await;
        Ok(Self::from_env_with(&request_limits(&sdk), 1).await?.with_request_limits())
    }

    /// Limits statements as [`Ctx::for_requests`] does.
    #[must_use]
    pub fn with_request_limits(self) -> Self {
        Self { db: self.db.with_statement_limit(REQUEST_STATEMENT_LIMIT), ..self }
    }

    async fn from_env_with(sdk: &SdkConfig, min: u32) -> Result<Self, Error> {
        let secrets = Secrets::new(aws_sdk_secretsmanager::Client::new(sdk));
        let mut config = Config::from_env(async |id: &str| secrets.get(id).await).await?;
        config.database.pool_size = config.database.pool_size.max(usize::try_from(min).unwrap_or(1));
        Self::new(config, sdk)
    }

    /// Uses this configuration and these AWS settings.
    pub fn new(config: Config, sdk: &SdkConfig) -> Result<Self, Error> {
        Ok(Self {
            db: Database::new(&config.database)?,
            queue: Queue::sqs(aws_sdk_sqs::Client::new(sdk), &config.sqs_prefix),
            storage: Storage::new(s3_client(&config.artifacts, sdk), config.artifacts.bucket.as_str()),
            secrets: Secrets::new(aws_sdk_secretsmanager::Client::new(sdk)),
            decisions: Arc::new(Signer::new(&config.decisions, sdk)),
            sdk: Arc::new(sdk.clone()),
            config,
        })
    }
}

/// AWS settings for a function that answers requests.
pub fn request_limits(sdk: &SdkConfig) -> SdkConfig {
    let limits = TimeoutConfig::builder()
        .connect_timeout(REQUEST_CONNECT)
        .operation_attempt_timeout(REQUEST_ATTEMPT)
        .operation_timeout(REQUEST_OPERATION);
    // The limits above end with the head of an answer. This one is for its body.
    let stalled = StalledStreamProtectionConfig::enabled().grace_period(REQUEST_ATTEMPT);
    sdk.to_builder().timeout_config(limits.build()).stalled_stream_protection(stalled.build()).build()
}

fn s3_client(artifacts: &ArtifactsConfig, sdk: &SdkConfig) -> aws_sdk_s3::Client {
    let mut config = aws_sdk_s3::config::Builder::from(sdk)
        // We send the sha256 ourselves. Some S3-compatible servers refuse other checksums.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &artifacts.endpoint_url {
        config = config.endpoint_url(endpoint).force_path_style(true);
    }
    if let Some(region) = &artifacts.region {
        config = config.region(Region::new(region.clone()));
    }
    if let Some((id, secret)) = &artifacts.keys {
        config = config.credentials_provider(Credentials::new(id, secret, None, None, "artifacts"));
    }
    aws_sdk_s3::Client::from_conf(config.build())
}
