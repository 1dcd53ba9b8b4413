//! What a warm function keeps between invocations: configuration, pool and clients. Each connects on first use.

use std::sync::Arc;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::config::{Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation};

use crate::config::{ArtifactsConfig, Config};
use crate::db::Database;
use crate::error::Error;
use crate::queue::Queue;
use crate::secrets::Secrets;
use crate::storage::Storage;

/// Configuration, pool and clients of a function.
#[derive(Clone)]
pub struct Ctx {
    pub config: Config,
    pub db: Database,
    pub queue: Queue,
    pub storage: Storage,
    pub secrets: Secrets,
    /// For the clients that only one function needs.
    pub sdk: Arc<SdkConfig>,
}

impl Ctx {
    /// Reads the configuration from the environment.
    pub async fn from_env() -> Result<Self, Error> {
        Self::for_connections(1).await
    }

    /// The same, with a pool of at least `min` connections.
    pub async fn for_connections(min: u32) -> Result<Self, Error> {
        let sdk = aws_config::load_defaults(BehaviorVersion::latest()).await;
        let secrets = Secrets::new(aws_sdk_secretsmanager::Client::new(&sdk));
        let mut config = Config::from_env(async |id: &str| secrets.get(id).await).await?;
        config.database.pool_size = config.database.pool_size.max(usize::try_from(min).unwrap_or(1));
        Self::new(config, &sdk)
    }

    /// Uses this configuration and these AWS settings.
    pub fn new(config: Config, sdk: &SdkConfig) -> Result<Self, Error> {
        Ok(Self {
            db: Database::new(&config.database)?,
            queue: Queue::sqs(aws_sdk_sqs::Client::new(sdk), &config.sqs_prefix),
            storage: Storage::new(s3_client(&config.artifacts, sdk), config.artifacts.bucket.as_str()),
            secrets: Secrets::new(aws_sdk_secretsmanager::Client::new(sdk)),
            sdk: Arc::new(sdk.clone()),
            config,
        })
    }
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
