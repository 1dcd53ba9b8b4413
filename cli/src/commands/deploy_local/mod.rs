//! `nofx deploy-local`: deploys the template to an emulator that enforces its IAM roles, and runs the sample plans
//! through API Gateway's URL. It starts its own servers and removes them afterwards.

mod people;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use aws_sdk_s3::config::Credentials;
use nofx_local::aws::emulator::Emulator;
use nofx_local::aws::resources::{ACCESS_KEY_ID, Aws, REGION, SECRET_ACCESS_KEY};
use nofx_local::checkout::Checkout;
use nofx_local::migrate::login::{api_login, worker_login};
use nofx_local::model::ScriptedModel;
use nofx_local::postgres::{Cluster, Postgres, Purpose};
use nofx_local::process::signals::Signals;
use nofx_local::process::supervision::Part;
use nofx_local::process::{self, Process};
use nofx_local::report::{self, hinted};
use nofx_local::throwaway::Throwaway;
use nofx_local::tools::node;
use nofx_local::tools::python::{self, PythonEnv};
use nofx_local::{migrate, port, stack};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::view::SigningKeys;
use tokio::process::Command;
use tokio::time::sleep;

use crate::client::api::Api;
use crate::client::error::ApiError;
use crate::client::sign::Signer;
use crate::commands::demo;
use crate::deploy::package::{self, Architecture};
use crate::deploy::sam;

use people::{DECIDER, People, STARTER, TENANT};

/// The bucket in which SAM puts the packages. samconfig.toml has the same name.
const PACKAGES_BUCKET: &str = "nofx-packages";
const DATABASE_SECRET: &str = "nofx/database-url";
const WORKER_DATABASE_SECRET: &str = "nofx/worker-database-url";
/// The name of the API in the template, with the default prefix.
const API: &str = "nofx-api";
const HEALTH_LIMIT: Duration = Duration::from_secs(30);
/// Number of lines of SAM's output that are shown after a failure.
const SHOWN_LINES: usize = 25;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Also require IAM authorization at API Gateway
    #[arg(long)]
    iam: bool,
}

/// The servers to which the stack is deployed. Dropping them kills them.
struct Servers {
    postgres: Process,
    emulator: Process,
    api_database_url: String,
    worker_database_url: String,
    endpoint: String,
    people: People,
    /// A stand-in for a model, with its URL.
    model: (String, Part),
}

/// Deploys, runs the samples, and stops.
pub async fn run(checkout: &Checkout, args: &Args) -> Result<()> {
    if !cfg!(target_os = "linux") {
        return Err(hinted(
            "deploy-local works on Linux only, because the emulator runs the functions as processes",
            "nofx dev runs the same functions here",
        ));
    }
    node::check().await?;
    let mut signals = Signals::listen()?;
    let place = Throwaway::make(checkout, "deploy").await?;
    let done = tokio::select! {
        done = deploy_and_run_samples(checkout, args, &place) => done,
        _ = signals.next() => Err(anyhow!("interrupted")),
    };
    if done.is_err() {
        report::line("logs", place.dir.display());
    }
    place.end(done.is_ok());
    done
}

async fn deploy_and_run_samples(checkout: &Checkout, args: &Args, place: &Throwaway) -> Result<()> {
    let local = PythonEnv::ready(checkout, &place.pid_file).await?;
    let tools = PythonEnv::of(python::DEPLOY, checkout, &place.pid_file).await?;
    stack::build(checkout, &place.pid_file).await?;
    let start = Instant::now();
    let template = package::package_dev_builds(checkout, &place.dir, args.iam, &place.pid_file).await?;
    let servers = Servers::start(checkout, place, &local, &tools).await?;
    report::took("start", "packages, Postgres, emulator", start.elapsed());

    let deploy = Instant::now();
    sam_deploy(checkout, place, &template, &tools, &servers).await?;
    let api = api_of(&servers.endpoint, args.iam).await?;
    check_callers(&api, &servers.people).await?;
    check_keys(&api).await?;
    report::took("deploy", format_args!("template.yaml is at {}", api.url("")), deploy.elapsed());

    let plans = Instant::now();
    let [starter, decider] = [STARTER, DECIDER].map(|(email, _)| servers.people.log_in(&api, email));
    let (starter, decider) = (starter.await?, decider.await?);
    let done = demo::run_samples(&starter, &decider, checkout).await;
    report::took("plans", "ended", plans.elapsed());
    servers.stop().await;
    done?;
    report::took("deploy", "from built binaries to the end of the last plan", start.elapsed());
    Ok(())
}

impl Servers {
    async fn start(checkout: &Checkout, place: &Throwaway, local: &PythonEnv, tools: &PythonEnv) -> Result<Self> {
        let postgres = Postgres::find(local, checkout).await?;
        let dir = place.dir.join("postgres");
        postgres.create(&checkout.local().join("cache"), &dir, Purpose::Throwaway, &place.pid_file).await?;
        let cluster = Cluster::open(dir, port::any_free()?)?;
        let server = postgres.start(&cluster, &place.dir.join("postgres.log"), &place.pid_file).await?;
        let database_url = cluster.url();
        migrate::migrate(&database_url, &checkout.migrations()).await?;
        migrate::seed(&database_url, &checkout.seed()).await?;
        let worker_database_url = worker_login(&database_url).await?;
        let api_database_url = api_login(&database_url).await?;
        let people = People::ready(&database_url, &place.dir.join("auth")).await?;

        let emulator = Emulator::new(tools, place.dir.join("emulator"), port::any_free()?, None)
            // Verify signatures and enforce policies, so that a missing permission of a role fails here.
            .with("AUTH", "true")
            .with("PERSIST_STATE", "0")
            .with("S3_PERSIST", "0")
            // Keeps installed dependencies.
            .with("GATE_RUNNER_WORK_DIR", checkout.local().join("gate").display().to_string());
        let process = emulator.start(&place.dir.join("emulator.log"), &place.pid_file).await?;
        let endpoint = emulator.url();
        let port = port::any_free()?;
        let model = (ScriptedModel::url(port), stack::serve_model(checkout, port).await?);
        let postgres = server;
        Ok(Self { postgres, emulator: process, api_database_url, worker_database_url, endpoint, people, model })
    }

    async fn stop(self) {
        self.people.stop().await;
        self.model.1.stop().await;
        self.emulator.end().await;
        self.postgres.end().await;
    }
}

async fn sam_deploy(
    checkout: &Checkout,
    place: &Throwaway,
    template: &Path,
    tools: &PythonEnv,
    servers: &Servers,
) -> Result<()> {
    let aws = Aws::new(&servers.endpoint);
    aws.s3.create_bucket().bucket(PACKAGES_BUCKET).send().await.context("cannot create the bucket for the packages")?;
    let secret = async |name, url| {
        let created = aws.secrets.create_secret().name(name).secret_string(url).send().await;
        Ok::<_, anyhow::Error>(
            created.context("cannot create the secret with the database's URL")?.arn.unwrap_or_default(),
        )
    };
    let secret_arn = secret(DATABASE_SECRET, &servers.api_database_url).await?;
    let worker_secret_arn = secret(WORKER_DATABASE_SECRET, &servers.worker_database_url).await?;

    let log = place.dir.join("sam.log");
    let mut command = sam::command(tools, checkout);
    command.arg("deploy").arg("--template-file").arg(template);
    // By default SAM looks for it next to the template.
    command.arg("--config-file").arg(sam::config(checkout));
    command.args(["--config-env", "local", "--parameter-overrides"]);
    command.args([
        format!("DatabaseSecretArn={secret_arn}"),
        format!("WorkerDatabaseSecretArn={worker_secret_arn}"),
        format!("Architecture={}", Architecture::native()?.name()),
        // The emulator runs programs, but no wrapper of a managed runtime.
        "GateRunnerRuntime=provided.al2023".to_owned(),
        format!("Tenant={TENANT}"),
        "AllowTemplateAnswers=true".to_owned(),
        format!("CompatibleBaseUrl={}", servers.model.0),
    ]);
    command.args(servers.people.parameters());
    to_emulator(&mut command, &servers.endpoint);
    process::log_to(&mut command, &log)?;
    if process::run("sam deploy", command, &place.pid_file).await? {
        return Ok(());
    }
    bail!("sam deploy failed:\n{}", last_lines(&log));
}

/// Points AWS clients to the emulator, so that they cannot reach the user's accounts.
fn to_emulator(command: &mut Command, endpoint: &str) {
    process::clear_inherited_env(command);
    command
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_REGION", REGION)
        .env("AWS_DEFAULT_REGION", REGION)
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true");
}

#[derive(Deserialize)]
struct RestApis {
    item: Vec<RestApi>,
}

#[derive(Deserialize)]
struct RestApi {
    id: String,
    name: String,
}

/// Waits until the deployed API is healthy. With IAM authorization, its requests are signed.
async fn api_of(endpoint: &str, has_iam: bool) -> Result<Api> {
    let credentials = || Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "emulator");
    let gateway = Api::at(endpoint).signed_by(Signer::new(credentials(), REGION, "apigateway"));
    let apis: RestApis = gateway.get("/restapis").await?;
    let id = apis.item.into_iter().find(|api| api.name == API).context("the stack has no API")?.id;
    let url = format!("{endpoint}/restapis/{id}/v1/_user_request_");
    let unsigned = reqwest::get(format!("{url}/health")).await.context("the API does not answer")?.status();
    if has_iam != (unsigned == StatusCode::FORBIDDEN) {
        bail!("a request without a signature got {unsigned}");
    }
    let api = Api::at(&url);
    let api = if has_iam { api.signed_by(Signer::new(credentials(), REGION, "execute-api")) } else { api };
    let start = Instant::now();
    while !api.is_healthy().await {
        if start.elapsed() > HEALTH_LIMIT {
            api.get::<Value>("/health").await.context("the API is not healthy")?;
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok(api)
}

/// Fails unless the API distinguishes callers.
async fn check_callers(api: &Api, people: &People) -> Result<()> {
    let viewer = api.clone().with_token(Some(people.viewer.clone()));
    let plan = json!({ "plan": { "goal": "refused", "steps": [{ "name": "echo", "tool": "echo" }] } });
    let refused = [
        ("unauthenticated", api.get::<Value>("/runs").await),
        ("forbidden", viewer.post::<Value>("/runs", &plan).await),
    ];
    for (expected, answer) in refused {
        match answer.as_ref().map_err(|error| error.downcast_ref::<ApiError>()) {
            Err(Some(error)) if error.code == expected => {}
            other => bail!("expected {expected}, not {other:?}"),
        }
    }
    viewer.get::<Value>("/runs").await.context("a service that may read gets no runs")?;
    Ok(())
}

/// Fails unless the API can read the public keys of the stack's signing keys.
async fn check_keys(api: &Api) -> Result<()> {
    let SigningKeys { keys } = api.get("/keys").await?;
    match keys.as_slice() {
        [evidence, decisions, seals] if evidence.current && decisions.current && seals.current => Ok(()),
        other => bail!("GET /keys lists {} keys, not the three of the stack", other.len()),
    }
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
