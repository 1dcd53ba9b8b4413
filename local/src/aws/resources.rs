//! Creates the control plane's AWS resources in the emulator: queues, the bucket for artifacts, the secret with the
//! provider keys. Creating them again changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};

use shared::domain::tool::HandlerSpec;

use crate::function::{self, QueueFunction};

pub const REGION: &str = "us-east-1";
pub const ACCESS_KEY_ID: &str = "test";
pub const SECRET_ACCESS_KEY: &str = "test";
pub const BUCKET: &str = "nofx-artifacts";
pub const LLM_SECRET: &str = "nofx/llm";
/// The keys that are copied from `.env` into the secret.
pub const PROVIDER_KEYS: [&str; 4] =
    ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_COMPATIBLE_API_KEY"];

const RECEIVES_MAX: u32 = 5;

/// The variable that lists for LocalStack's hook what to create: the same as [`Aws::create_resources`] creates.
pub fn hook_variable() -> (&'static str, String) {
    let queues: Vec<Value> = function::queue_functions()
        .map(|function| function.spec)
        .chain(function::polled_handlers())
        .map(|spec| {
            json!({
                "queue": spec.queue(""),
                "dead_letter_queue": spec.dead_letter_queue(""),
                "visibility_s": spec.visibility_s(),
            })
        })
        .collect();
    let resources = json!({
        "region": REGION,
        "bucket": BUCKET,
        "secret": LLM_SECRET,
        "queue_prefix": "nofx-",
        "receives_max": RECEIVES_MAX,
        "queues": queues,
    });
    ("NOFX_RESOURCES", resources.to_string())
}

/// Clients of one emulator.
#[derive(Clone, Debug)]
pub struct Aws {
    pub sqs: aws_sdk_sqs::Client,
    pub s3: aws_sdk_s3::Client,
    pub secrets: aws_sdk_secretsmanager::Client,
}

/// A queue that feeds a function.
#[derive(Clone, Debug)]
pub struct Queue {
    pub url: String,
    pub arn: String,
}

impl Aws {
    pub fn new(endpoint: &str) -> Self {
        let timeouts = TimeoutConfig::builder().connect_timeout(Duration::from_secs(2)).build();
        let credentials = Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "local stack");
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(endpoint)
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .timeout_config(timeouts)
            .build();
        let s3 = aws_sdk_s3::config::Builder::from(&sdk).force_path_style(true).build();
        Self {
            sqs: aws_sdk_sqs::Client::new(&sdk),
            s3: aws_sdk_s3::Client::from_conf(s3),
            secrets: aws_sdk_secretsmanager::Client::new(&sdk),
        }
    }

    /// Creates everything that is missing. Returns the functions in order, each with its queue.
    pub async fn create_resources(
        &self,
        queue_prefix: &str,
        dotenv: &BTreeMap<String, String>,
    ) -> Result<Vec<(QueueFunction, Queue)>> {
        self.create_bucket_if_missing().await?;
        self.put_llm_secret(dotenv).await?;
        let mut queues = Vec::new();
        for function in function::queue_functions() {
            queues.push((function, self.create_queue_pair(function.spec, queue_prefix).await?));
        }
        for handler in function::polled_handlers() {
            self.create_queue_pair(handler, queue_prefix).await?;
        }
        Ok(queues)
    }

    async fn create_queue_pair(&self, spec: &HandlerSpec, prefix: &str) -> Result<Queue> {
        let dead_letters = self.create_queue_if_missing(&spec.dead_letter_queue(prefix)).await?;
        let queue = self.create_queue_if_missing(&spec.queue(prefix)).await?;
        let redrive = json!({ "deadLetterTargetArn": dead_letters.arn, "maxReceiveCount": RECEIVES_MAX.to_string() });
        // Set attributes in a second call: SQS refuses to create an existing queue with different attributes.
        self.sqs
            .set_queue_attributes()
            .queue_url(&queue.url)
            .attributes(QueueAttributeName::VisibilityTimeout, spec.visibility_s().to_string())
            .attributes(QueueAttributeName::RedrivePolicy, redrive.to_string())
            .send()
            .await
            .with_context(|| format!("cannot configure the queue {}", queue.url))?;
        Ok(queue)
    }

    async fn create_queue_if_missing(&self, name: &str) -> Result<Queue> {
        let created = self.sqs.create_queue().queue_name(name).send().await;
        let url = match created {
            Ok(output) => output.queue_url,
            // It exists with other attributes.
            Err(_) => {
                self.sqs
                    .get_queue_url()
                    .queue_name(name)
                    .send()
                    .await
                    .with_context(|| format!("cannot create the queue {name}"))?
                    .queue_url
            }
        };
        let url = url.ok_or_else(|| anyhow!("the queue {name} has no URL"))?;
        let attributes = self
            .sqs
            .get_queue_attributes()
            .queue_url(&url)
            .attribute_names(QueueAttributeName::QueueArn)
            .send()
            .await
            .with_context(|| format!("cannot read the attributes of the queue {name}"))?;
        let arn = attributes
            .attributes
            .and_then(|mut attributes| attributes.remove(&QueueAttributeName::QueueArn))
            .ok_or_else(|| anyhow!("the queue {name} has no ARN"))?;
        Ok(Queue { url, arn })
    }

    async fn create_bucket_if_missing(&self) -> Result<()> {
        if self.s3.head_bucket().bucket(BUCKET).send().await.is_ok() {
            return Ok(());
        }
        self.s3
            .create_bucket()
            .bucket(BUCKET)
            .send()
            .await
            .with_context(|| format!("cannot create the bucket {BUCKET}"))?;
        Ok(())
    }

    async fn put_llm_secret(&self, dotenv: &BTreeMap<String, String>) -> Result<()> {
        let keys: BTreeMap<&str, &String> =
            PROVIDER_KEYS.iter().filter_map(|key| Some((*key, dotenv.get(*key)?))).collect();
        let text = serde_json::to_string(&keys).context("cannot encode the provider keys")?;
        let put = self.secrets.put_secret_value().secret_id(LLM_SECRET).secret_string(&text).send().await;
        if put.is_ok() {
            return Ok(());
        }
        self.secrets
            .create_secret()
            .name(LLM_SECRET)
            .secret_string(text)
            .send()
            .await
            .with_context(|| format!("cannot create the secret {LLM_SECRET}"))?;
        Ok(())
    }
}
