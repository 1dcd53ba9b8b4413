//! Configuration. This is the only reader of the environment. It reads each variable once, when the function starts.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `DATABASE_URL` | Postgres connection URL | required, unless `DATABASE_SECRET_ID` is set |
//! | `DATABASE_SECRET_ID` | secret whose text is that URL | none |
//! | `DATABASE_CA_FILE` | PEM file with the database's CA certificate | the public CAs |
//! | `DATABASE_POOL_SIZE` | connections per process; `db_write` has at least one for each write of a batch, and one more | 2 |
//! | `SQS_PREFIX` | prefix of the queue names | `nofx-` |
//! | `ARTIFACTS_BUCKET` | bucket for artifacts | `nofx-artifacts` |
//! | `ARTIFACTS_ENDPOINT_URL`, `ARTIFACTS_REGION`, `ARTIFACTS_ACCESS_KEY_ID`, `ARTIFACTS_SECRET_ACCESS_KEY` | a separate S3 endpoint for artifacts | AWS's, or `AWS_ENDPOINT_URL` |
//! | `ARTIFACTS_SECRET_ID` | secret with the keys of that endpoint: `{"access_key_id": .., "secret_access_key": ..}` | none |
//! | `NOFX_TENANT` | tenant of people whose token names none, and the only tenant that can see the queues | `local` |
//! | `NOFX_AUTH` | `on`, or on a laptop `local`: requests need no credential, and are those of the person `local` | none; HTTP functions need it |
//! | `AUTH_ISSUER` | `iss` of the tokens of people; without it only API tokens and sessions are valid | none |
//! | `AUTH_JWKS_URL` | where the issuer lists its public keys | `<issuer>/.well-known/jwks.json` |
//! | `AUTH_JWKS` | these keys instead, as a document that never changes | none |
//! | `AUTH_JWKS_MAX_STALE_H` | how long the last keys stay valid while they cannot be read again, in hours | 24 |
//! | `AUTH_AUDIENCE` | `aud` of the tokens of people | `authenticated` |
//! | `AUTH_HS256_SECRET_ID` | secret with the issuer's shared secret, of at least 32 bytes | none |
//! | `AUTH_URL`, `AUTH_PUBLISHABLE_KEY` | URL at which people log in with a password, and the public key that requests to it carry | none |
//! | `NOFX_PUBLIC_URL` | URL at which browsers reach the API | none |
//! | `LLM_SECRET_ID` | secret with the providers' keys | `nofx/llm` |
//! | `LLM_ORDER` | providers in order of preference, separated by commas | by kind |
//! | `LLM_ALLOW_TEMPLATE` | if no provider key is set, fill in a template and say so | false |
//! | `LLM_REQUEST_TIMEOUT_S` | timeout of one request, in seconds | 240 |
//! | `LLM_STREAM` | whether answers are streamed, so that a provider that hangs is seen early | true |
//! | `LLM_IDLE_TIMEOUT_S` | how long a streamed answer may pause between two events, in seconds | 60 |
//! | `LLM_MAX_OUTPUT_TOKENS` | maximum tokens of an answer, including reasoning | 16384 |
//! | `LLM_TRIES` | maximum requests to one model for one attempt of a step, including the first (1 to 10) | 3 |
//! | `OPENAI_BASE_URL`, `ANTHROPIC_BASE_URL`, `GEMINI_BASE_URL` | another server with the provider's API | the provider's |
//! | `OPENAI_MODEL`, `ANTHROPIC_MODEL`, `GEMINI_MODEL` | model of a provider | codegen's table |
//! | `OPENAI_API` | `responses`, or `chat` for the chat completions of `OPENAI_BASE_URL` | responses |
//! | `OPENAI_COMPATIBLE_BASE_URL`, `OPENAI_COMPATIBLE_MODEL` | a server with chat completions, such as a local model's, and its model | none |
//! | `GATE_DEFAULT_WORKSPACE`, `GATE_DEFAULT_BASE` | folders that gates judge if a plan names no workspace | none |
//! | `GATE_WORK_DIR` | folder in which gates unpack what they judge | `nofx-gate` in the temporary folder |
//! | `GATE_RUNNER` | the function that runs the commands of gates | `gate_runner` |
//! | `GATE_RUNNER_WORK_DIR` | folder in which gate_runner runs commands and keeps installed dependencies | `nofx-gate-runner` in the temporary folder, with the uid of a user who is not root |
//! | `GATE_NPM_USER_CONFIG` | gate_runner's npm settings, for installing dependencies only | `~/.npmrc` if it exists |
//! | `PATH` | search path in which gate_runner finds toolchains, and workspace:git finds git; they use nothing else from it | |
//! | `SIGNING_KEY_FILE` | PEM file with the private key that signs evidence (PKCS#8, P-256); only its owner may read it | none |
//! | `SIGNING_KEY_ID` | the KMS key that signs evidence instead (`ECC_NIST_P256`): id, ARN or alias | none |
//! | `SIGNING_PUBLIC_KEYS` | PEM text with further public keys that `GET /keys` lists | none |
//! | `DECISION_KEY_FILE` | PEM file with the private key that signs decisions about gates, in the form of `SIGNING_KEY_FILE`; not the key of evidence | none |
//! | `DECISION_KEY_ID` | the KMS key that signs decisions instead: id, ARN or alias | none |
//! | `DECISION_PUBLIC_KEYS` | PEM text with further public keys of decisions that `GET /keys` lists | none |
//! | `SEAL_KEY_FILE` | PEM file with the private key that seals ended runs, in the form of `SIGNING_KEY_FILE`; not one of the other keys | none |
//! | `SEAL_KEY_ID` | the KMS key that seals runs instead: id, ARN or alias | none |
//! | `SEAL_PUBLIC_KEYS` | PEM text with further public keys of seals, which `GET /keys` lists, and by which the sweeper knows its earlier proofs | none |
//! | `LONG_GATES` | whether plans may have gates of up to 6 hours, because a machine polls their queue | false |
//! | `MAX_STEPS`, `MAX_EDGES`, `MAX_PLAN_BYTES` | limits of a plan | 1000, 10000, 1 MiB |
//! | `MAX_INPUTS_BYTES`, `MAX_RESOLVED_BYTES`, `MAX_OUTPUTS_BYTES` | limits of a step: inputs as posted, inputs with their references resolved, outputs | 256 KiB, 1 MiB, 256 KiB |

mod auth;

use std::env;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;

pub use auth::{AuthConfig, AuthMode, IssuerConfig, KeySource, LoginConfig, Platform, is_loopback};

use crate::domain::TenantId;
use crate::domain::plan::Limits;
use crate::error::Error;

/// Configuration of a function.
#[derive(Clone)]
pub struct Config {
    pub database: DatabaseConfig,
    pub sqs_prefix: String,
    pub artifacts: ArtifactsConfig,
    pub tenant: TenantId,
    pub auth: Arc<AuthConfig>,
    pub public_url: Option<String>,
    pub llm: LlmConfig,
    pub gate: GateDefaults,
    /// The key of evidence.
    pub signing: SigningConfig,
    /// The key of decisions.
    pub decisions: SigningConfig,
    /// The key of seals.
    pub seals: SigningConfig,
    pub limits: Limits,
}

/// How to reach Postgres.
#[derive(Clone)]
pub struct DatabaseConfig {
    pub url: String,
    pub ca_file: Option<PathBuf>,
    pub pool_size: usize,
}

/// Where artifacts are stored.
#[derive(Clone)]
pub struct ArtifactsConfig {
    pub bucket: String,
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
    /// Access key id and secret of that endpoint.
    pub keys: Option<(String, String)>,
}

impl ArtifactsConfig {
    /// Whether the storage has an archive: the bucket of the deployment has. Another S3 endpoint, with keys of its own, has none.
    pub fn can_archive(&self) -> bool {
        self.keys.is_none()
    }
}

/// Configuration of the model router.
#[derive(Clone, Default)]
pub struct LlmConfig {
    pub secret_id: String,
    pub order: Option<String>,
    pub allow_template: bool,
    pub request_timeout_s: Option<u32>,
    pub max_output_tokens: Option<u32>,
    pub tries: Option<u32>,
    pub stream: Option<bool>,
    pub idle_timeout_s: Option<u32>,
    /// `responses` or `chat`.
    pub openai_api: Option<String>,
    /// Base URL and model by provider: `openai`, `anthropic`, `gemini`, `openai_compatible`.
    pub providers: Vec<(&'static str, Option<String>, Option<String>)>,
}

/// Configuration of gates, with the workspace that they judge if a plan names none.
#[derive(Clone, Default)]
pub struct GateDefaults {
    pub workspace: Option<PathBuf>,
    pub base: Option<PathBuf>,
    pub work_dir: PathBuf,
    /// The function that runs commands.
    pub runner: String,
    /// Where `git` is.
    pub search_path: Option<String>,
}

/// Configuration of the function `gate_runner`. It has no database and no AWS permission.
#[derive(Debug, Clone, Default)]
pub struct RunnerConfig {
    pub work_dir: PathBuf,
    /// npm's user settings, for a registry that needs them.
    pub npm_user_config: Option<PathBuf>,
    /// The search path in which the runner looks for toolchains.
    pub search_path: Option<String>,
    /// Lambda started the process.
    pub is_lambda: bool,
}

impl RunnerConfig {
    /// Reads the environment.
    pub fn from_env() -> Self {
        Self {
            work_dir: text("GATE_RUNNER_WORK_DIR")
                .map_or_else(|| env::temp_dir().join(format!("nofx-gate-runner{}", user_suffix())), PathBuf::from),
            npm_user_config: text("GATE_NPM_USER_CONFIG").map(PathBuf::from).or_else(home_npmrc),
            search_path: text("PATH"),
            is_lambda: text("AWS_LAMBDA_RUNTIME_API").is_some(),
        }
    }
}

/// Which key signs, and which public keys verify that.
#[derive(Clone, Debug)]
pub struct SigningConfig {
    /// The beginning of its variables: `SIGNING` for evidence, `DECISION` for decisions, `SEAL` for seals.
    pub purpose: &'static str,
    pub key_file: Option<PathBuf>,
    /// Of a key in KMS.
    pub key_id: Option<String>,
    /// PEM blocks.
    pub public_keys: Option<String>,
}

impl SigningConfig {
    /// The prefixes of variables.
    pub const EVIDENCE: &'static str = "SIGNING";
    pub const DECISIONS: &'static str = "DECISION";
    pub const SEALS: &'static str = "SEAL";

    /// No key for this purpose.
    pub fn none(purpose: &'static str) -> Self {
        Self { purpose, key_file: None, key_id: None, public_keys: None }
    }
}

impl Default for SigningConfig {
    fn default() -> Self {
        Self::none(Self::EVIDENCE)
    }
}

impl Config {
    /// Default settings with this database.
    pub fn new(database: DatabaseConfig) -> Self {
        Self {
            database,
            sqs_prefix: "nofx-".into(),
            artifacts: ArtifactsConfig {
                bucket: "nofx-artifacts".into(),
                endpoint_url: None,
                region: None,
                keys: None,
            },
            tenant: TenantId("local".into()),
            auth: Arc::default(),
            public_url: None,
            llm: LlmConfig { secret_id: "nofx/llm".into(), ..LlmConfig::default() },
            gate: GateDefaults::default(),
            signing: SigningConfig::default(),
            decisions: SigningConfig::none(SigningConfig::DECISIONS),
            seals: SigningConfig::none(SigningConfig::SEALS),
            limits: Limits::default(),
        }
    }

    /// Reads the environment. `read_secret` reads the secrets that `.._SECRET_ID` variables name, one call for each.
    pub async fn from_env(read_secret: impl AsyncFn(&str) -> Result<Option<Arc<str>>, Error>) -> Result<Self, Error> {
        let default = Self::new(DatabaseConfig {
            url: database_url(&read_secret).await?,
            ca_file: text("DATABASE_CA_FILE").map(PathBuf::from),
            pool_size: parsed("DATABASE_POOL_SIZE")?.unwrap_or(2),
        });
        Ok(Self {
            database: default.database,
            sqs_prefix: text("SQS_PREFIX").unwrap_or(default.sqs_prefix),
            artifacts: ArtifactsConfig {
                bucket: text("ARTIFACTS_BUCKET").unwrap_or(default.artifacts.bucket),
                endpoint_url: text("ARTIFACTS_ENDPOINT_URL").or_else(|| text("AWS_ENDPOINT_URL")),
                region: text("ARTIFACTS_REGION"),
                keys: artifacts_keys(&read_secret).await?,
            },
            tenant: text("NOFX_TENANT").map_or(default.tenant, TenantId),
            auth: Arc::new(AuthConfig::read(text, hs256_secret(&read_secret).await?)?),
            public_url: text("NOFX_PUBLIC_URL"),
            llm: LlmConfig {
                secret_id: text("LLM_SECRET_ID").unwrap_or(default.llm.secret_id),
                order: text("LLM_ORDER"),
                allow_template: parsed("LLM_ALLOW_TEMPLATE")?.unwrap_or(default.llm.allow_template),
                request_timeout_s: positive("LLM_REQUEST_TIMEOUT_S")?,
                max_output_tokens: positive("LLM_MAX_OUTPUT_TOKENS")?,
                tries: positive("LLM_TRIES")?,
                stream: parsed("LLM_STREAM")?,
                idle_timeout_s: positive("LLM_IDLE_TIMEOUT_S")?,
                openai_api: text("OPENAI_API"),
                providers: vec![
                    ("openai", text("OPENAI_BASE_URL"), text("OPENAI_MODEL")),
                    ("anthropic", text("ANTHROPIC_BASE_URL"), text("ANTHROPIC_MODEL")),
                    ("gemini", text("GEMINI_BASE_URL"), text("GEMINI_MODEL")),
                    ("openai_compatible", text("OPENAI_COMPATIBLE_BASE_URL"), text("OPENAI_COMPATIBLE_MODEL")),
                ],
            },
            gate: GateDefaults {
                workspace: text("GATE_DEFAULT_WORKSPACE").map(PathBuf::from),
                base: text("GATE_DEFAULT_BASE").map(PathBuf::from),
                work_dir: text("GATE_WORK_DIR").map_or_else(|| env::temp_dir().join("nofx-gate"), PathBuf::from),
                runner: text("GATE_RUNNER").unwrap_or_else(|| "gate_runner".to_owned()),
                search_path: text("PATH"),
            },
            signing: SigningConfig {
                key_file: text("SIGNING_KEY_FILE").map(PathBuf::from),
                key_id: text("SIGNING_KEY_ID"),
                public_keys: text("SIGNING_PUBLIC_KEYS"),
                ..default.signing
            },
            decisions: SigningConfig {
                key_file: text("DECISION_KEY_FILE").map(PathBuf::from),
                key_id: text("DECISION_KEY_ID"),
                public_keys: text("DECISION_PUBLIC_KEYS"),
                ..default.decisions
            },
            seals: SigningConfig {
                key_file: text("SEAL_KEY_FILE").map(PathBuf::from),
                key_id: text("SEAL_KEY_ID"),
                public_keys: text("SEAL_PUBLIC_KEYS"),
                ..default.seals
            },
            limits: limits(default.limits)?,
        })
    }
}

async fn database_url(read_secret: impl AsyncFn(&str) -> Result<Option<Arc<str>>, Error>) -> Result<String, Error> {
    if let Some(url) = text("DATABASE_URL") {
        return Ok(url);
    }
    let secret = secret("DATABASE_SECRET_ID", read_secret).await?;
    secret.map(|url| url.trim().to_owned()).ok_or_else(|| Error::invalid("DATABASE_URL", "is not set"))
}

/// Access key id and secret of an S3 endpoint.
#[derive(Deserialize)]
struct KeyPair {
    access_key_id: String,
    secret_access_key: String,
}

async fn artifacts_keys(
    read_secret: impl AsyncFn(&str) -> Result<Option<Arc<str>>, Error>,
) -> Result<Option<(String, String)>, Error> {
    let keys = text("ARTIFACTS_ACCESS_KEY_ID").zip(text("ARTIFACTS_SECRET_ACCESS_KEY"));
    if keys.is_some() {
        return Ok(keys);
    }
    let Some(secret) = secret("ARTIFACTS_SECRET_ID", read_secret).await? else { return Ok(None) };
    // The parser's message may contain part of the secret.
    let pair: KeyPair = serde_json::from_str(&secret).map_err(|_| {
        Error::invalid(
            "ARTIFACTS_SECRET_ID",
            "names a secret that is not {\"access_key_id\": .., \"secret_access_key\": ..}",
        )
    })?;
    Ok(Some((pair.access_key_id, pair.secret_access_key)))
}

async fn hs256_secret(
    read_secret: impl AsyncFn(&str) -> Result<Option<Arc<str>>, Error>,
) -> Result<Option<Arc<str>>, Error> {
    Ok(secret("AUTH_HS256_SECRET_ID", read_secret).await?.map(|secret| secret.trim().into()))
}

/// The secret that this variable names. A missing secret is an error, because there is no fallback.
async fn secret(
    name: &'static str,
    read_secret: impl AsyncFn(&str) -> Result<Option<Arc<str>>, Error>,
) -> Result<Option<Arc<str>>, Error> {
    let Some(id) = text(name) else { return Ok(None) };
    let missing = || Error::invalid(name, "names a secret that does not exist or has no value");
    read_secret(&id).await?.ok_or_else(missing).map(Some)
}

fn limits(default: Limits) -> Result<Limits, Error> {
    Ok(Limits {
        steps: parsed("MAX_STEPS")?.unwrap_or(default.steps),
        edges: parsed("MAX_EDGES")?.unwrap_or(default.edges),
        resolved_bytes: parsed("MAX_RESOLVED_BYTES")?.unwrap_or(default.resolved_bytes),
        inputs_bytes: parsed("MAX_INPUTS_BYTES")?.unwrap_or(default.inputs_bytes),
        outputs_bytes: parsed("MAX_OUTPUTS_BYTES")?.unwrap_or(default.outputs_bytes),
        plan_bytes: parsed("MAX_PLAN_BYTES")?.unwrap_or(default.plan_bytes),
        long_gates: parsed("LONG_GATES")?.unwrap_or(default.long_gates),
    })
}

fn home_npmrc() -> Option<PathBuf> {
    text("HOME").map(|home| PathBuf::from(home).join(".npmrc")).filter(|path| path.is_file())
}

/// Keeps users of one machine apart. Empty for root and where the system has no `/proc`.
fn user_suffix() -> String {
    let uid = std::fs::metadata("/proc/self").map_or(0, |own| std::os::unix::fs::MetadataExt::uid(&own));
    if uid == 0 { String::new() } else { format!("-{uid}") }
}

/// An empty variable counts as not set.
fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn parsed<T: FromStr>(name: &'static str) -> Result<Option<T>, Error> {
    text(name).map(|value| value.parse().map_err(|_| Error::invalid(name, "is malformed"))).transpose()
}

fn positive(name: &'static str) -> Result<Option<u32>, Error> {
    let number = parsed::<NonZeroU32>(name)?;
    Ok(number.map(NonZeroU32::get))
}
