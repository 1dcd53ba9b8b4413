//! A local stack: Postgres, the AWS emulator, the functions, and what invokes them. It starts them in this order and
//! stops them in reverse.

pub mod docker;
pub mod environment;
pub mod logins;
pub mod signing_key;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use axum::Router;
use futures::future::join_all;
use tokio::process::Command;
use tokio::time::sleep;

use crate::aws::emulator::Emulator;
use crate::aws::resources::{Aws, Queue};
use crate::checkout::Checkout;
use crate::function::{self, GATE_RUNNER, HTTP_FUNCTIONS, QueueFunction, SWEEPER};
use crate::gateway::routes::Routes;
use crate::gateway::runtime_api::Functions;
use crate::gateway::{Gateway, server};
use crate::issuer::NewUser;
use crate::lambda::event_source::{EventSource, WAIT_MAX_S, WAIT_SHORT_S};
use crate::lambda::host::{Health, Host, HostConfig, Inherited, Runtime, WarmUp};
use crate::lambda::{schedule, sources};
use crate::migrate::login::{api_login, worker_login};
use crate::migrate::tenant::local_tenant;
use crate::model::ScriptedModel;
use crate::port::{self, Ports};
use crate::postgres::{Cluster, Postgres, Purpose};
use crate::process::supervision::{self, Part};
use crate::process::{self, PidFile, Process, Termination, stop, table};
use crate::report::{self, hinted};
use crate::stack::logins::Logins;
use crate::stack::signing_key::{HTTP_HOST, SigningKey, Signs};
use crate::throwaway::Throwaway;
use crate::tools::python::PythonEnv;
use crate::{database, migrate};

/// How often the process table is read. A dead function is noticed after at most this time plus the grace period of
/// `liveness`.
const PROCESS_POLL_PERIOD: Duration = Duration::from_millis(400);
/// A client that sends no complete request head within this time is disconnected.
const HEAD_LIMIT: Duration = Duration::from_mins(1);
const READY_LIMIT: Duration = Duration::from_mins(3);
/// Invocations in flight may end within this time when the stack stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);

/// Options of a stack.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of its files.
    pub state: PathBuf,
    /// Port of the API. `None` starts no functions.
    pub http_port: Option<u16>,
    /// Whether a changed file causes a build.
    pub reload: bool,
    pub purpose: Purpose,
    /// The user's own database. If set, no Postgres is started.
    pub database_url: Option<String>,
    /// The user's own AWS endpoint. If set, no emulator is started.
    pub aws_endpoint: Option<String>,
    /// Further variables of the functions. They replace the stack's own values.
    pub variables: BTreeMap<&'static str, String>,
    /// The services of the emulator. `None` is all of them.
    pub services: Option<&'static str>,
    pub sweep_period: Duration,
    /// Who logs in. `None` is the local mode, in which one person acts without a login.
    pub logins: Option<Logins>,
}

impl Options {
    /// A throwaway stack for one command. See [`Options::http_port`].
    pub fn throwaway(place: &Throwaway, http_port: Option<u16>) -> Result<Self> {
        Ok(Self {
            state: place.dir.clone(),
            http_port,
            reload: false,
            purpose: Purpose::Throwaway,
            database_url: None,
            aws_endpoint: None,
            variables: BTreeMap::new(),
            services: None,
            sweep_period: sweep_period()?,
            logins: None,
        })
    }
}

/// A stack, started or starting.
#[derive(Debug)]
pub struct Stack {
    checkout: Checkout,
    options: Options,
    pid_file: PidFile,
    http: reqwest::Client,
    /// Started parts, in order. The parts of a tier do not depend on each other.
    tiers: Vec<Vec<Part>>,
    pub database_url: String,
    pub aws_endpoint: String,
    model_url: String,
    /// The users that this start made, with their passwords.
    pub new_users: Vec<NewUser>,
}

impl Stack {
    pub fn new(checkout: Checkout, options: Options, pid_file: PidFile) -> Self {
        Self {
            checkout,
            options,
            pid_file,
            http: reqwest::Client::new(),
            tiers: Vec::new(),
            database_url: String::new(),
            aws_endpoint: String::new(),
            model_url: String::new(),
            new_users: Vec::new(),
        }
    }

    /// Starts everything. After an error, call [`Stack::stop`] for what was started before it.
    pub async fn start(&mut self) -> Result<()> {
        let logs = self.options.state.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        let env = PythonEnv::ready(&self.checkout, &self.pid_file).await?;
        let mut ports = Ports::load(self.options.state.join("ports.json"));
        self.start_postgres(&env, &mut ports).await?;
        self.start_emulator(&env, &mut ports).await?;
        if let Some(http_port) = self.options.http_port {
            ports.set("http", http_port)?;
            self.start_functions(&env, &mut ports, http_port).await?;
        }
        Ok(())
    }

    /// Stops everything, last started first.
    pub async fn stop(&mut self) {
        while let Some(tier) = self.tiers.pop() {
            join_all(tier.into_iter().map(Part::stop)).await;
        }
    }

    /// Kills everything at once.
    pub async fn kill(&self) {
        // Stop the supervisors first, so that they do not restart what is killed.
        for part in self.tiers.iter().flatten() {
            part.stop_sender.send();
        }
        self.pid_file.kill_all().await;
    }

    async fn start_postgres(&mut self, env: &PythonEnv, ports: &mut Ports) -> Result<()> {
        let start = Instant::now();
        if let Some(url) = &self.options.database_url {
            database::check(url).await?;
            self.database_url.clone_from(url);
            report::took("postgres", "that of DATABASE_URL answers", start.elapsed());
            return Ok(());
        }
        let postgres = Postgres::find_for(env, &self.checkout, &self.options.state).await?;
        let cache = self.checkout.local().join("cache");
        let dir = self.options.state.join("postgres");
        postgres.create(&cache, &dir, self.options.purpose, &self.pid_file).await?;
        let cluster = Cluster::open(dir, ports.pick("postgres")?)?;
        let log = self.options.state.join("logs/postgres.log");
        let server = postgres.start(&cluster, &log, &self.pid_file).await?;
        self.database_url = cluster.url();
        report::took("postgres", format_args!("ready on 127.0.0.1:{}", cluster.port), start.elapsed());

        let pid_file = self.pid_file.clone();
        self.tiers.push(vec![supervision::supervise("postgres", server, move || {
            let (postgres, cluster, log, pid_file) = (postgres.clone(), cluster.clone(), log.clone(), pid_file.clone());
            async move { postgres.start(&cluster, &log, &pid_file).await }
        })]);
        Ok(())
    }

    async fn start_emulator(&mut self, env: &PythonEnv, ports: &mut Ports) -> Result<()> {
        let start = Instant::now();
        if let Some(endpoint) = &self.options.aws_endpoint {
            self.aws_endpoint.clone_from(endpoint);
            report::line("emulator", format_args!("that of AWS_ENDPOINT_URL, {endpoint}"));
            return Ok(());
        }
        let dir = self.options.state.join("emulator");
        let port = ports.pick("emulator")?;
        let emulator = Emulator::new(env, dir, port, self.options.services);
        let log = self.options.state.join("logs/emulator.log");
        let process = emulator.start(&log, &self.pid_file).await?;
        self.aws_endpoint = emulator.url();
        report::took("emulator", format_args!("SQS, S3, Secrets Manager on 127.0.0.1:{port}"), start.elapsed());

        let (pid_file, aws, prefix) = (self.pid_file.clone(), Aws::new(&emulator.url()), environment::queue_prefix());
        let with_resources = self.options.http_port.is_some();
        let dotenv = self.checkout.dotenv()?;
        self.tiers.push(vec![supervision::supervise("emulator", process, move || {
            let (emulator, log, pid_file) = (emulator.clone(), log.clone(), pid_file.clone());
            let (aws, prefix, dotenv) = (aws.clone(), prefix.clone(), dotenv.clone());
            async move {
                let process = emulator.start(&log, &pid_file).await?;
                // It saves its queues only on a clean exit. After a crash they are created again, and the sweeper sends
                // the lost wake-ups.
                if with_resources {
                    aws.create_resources(&prefix, &dotenv).await?;
                }
                Ok(process)
            }
        })]);
        Ok(())
    }

    async fn start_functions(&mut self, env: &PythonEnv, ports: &mut Ports, http_port: u16) -> Result<()> {
        let start = Instant::now();
        let dotenv = self.checkout.dotenv()?;
        let aws = Aws::new(&self.aws_endpoint);
        let queues = aws.create_resources(&environment::queue_prefix(), &dotenv).await?;
        report::took("resources", format_args!("{} queues, bucket, secret", 2 * queues.len()), start.elapsed());

        let start = Instant::now();
        let count = migrate::migrate(&self.database_url, &self.checkout.migrations()).await?;
        if self.options.database_url.is_none() {
            migrate::seed(&self.database_url, &self.checkout.seed()).await?;
        }
        self.start_logins(ports).await?;
        report::took("migrate", format_args!("{count} applied"), start.elapsed());

        build(&self.checkout, &self.pid_file).await?;
        let start = Instant::now();
        self.start_model(ports).await?;
        let host_config = self.host_config(env, &dotenv, http_port).await?;
        let runner_port = ports.pick(GATE_RUNNER)?;
        let workers = self.worker_host_config(&host_config, runner_port).await?;
        let runner = self.start_gate_runner(&host_config, runner_port);
        let (runtime, gateway) = self.start_gateway(ports, http_port).await?;
        let mut healths = self.start_hosts([&host_config, &workers], runtime, gateway, &queues, &aws, ports)?;
        healths.push((GATE_RUNNER, runner));
        self.wait_ready(healths).await?;
        self.check_health(http_port).await?;
        report::took("functions", format_args!("ready on 127.0.0.1:{http_port}"), start.elapsed());
        Ok(())
    }

    /// Makes the tenant with its people, and starts the issuer of their tokens if they log in.
    async fn start_logins(&mut self, ports: &mut Ports) -> Result<()> {
        let client = database::connect(&self.database_url).await?;
        let Some(logins) = &self.options.logins else {
            return local_tenant(&client, environment::TENANT).await;
        };
        let port = ports.pick("issuer")?;
        let (issuer, new_users) = logins.ready(&self.options.state.join(logins::FOLDER), port, &client).await?;
        self.new_users = new_users;
        for (name, value) in issuer.variables().into_iter().chain([("NOFX_AUTH", "on".to_owned())]) {
            self.options.variables.entry(name).or_insert(value);
        }
        self.tiers.push(vec![logins::serve(issuer, port).await?]);
        Ok(())
    }

    /// Starts the stand-in for a model, where the functions find an OpenAI-compatible server unless the user names another. It
    /// has no default model, so only a step that names one asks it.
    async fn start_model(&mut self, ports: &mut Ports) -> Result<()> {
        let port = ports.pick("model")?;
        self.tiers.push(vec![serve_model(&self.checkout, port).await?]);
        self.model_url = ScriptedModel::url(port);
        Ok(())
    }

    /// For HTTP functions, with their database login. With the user's own database, all functions use the login of
    /// `DATABASE_URL`.
    async fn host_config(
        &self,
        env: &PythonEnv,
        dotenv: &BTreeMap<String, String>,
        http_port: u16,
    ) -> Result<HostConfig> {
        let root = self.checkout.root().to_owned();
        let changes = if self.options.reload { sources::poll(&root) } else { sources::none() };
        let mut variables =
            environment::functions(&self.checkout, &self.database_url, &self.aws_endpoint, http_port, dotenv);
        variables.entry("OPENAI_COMPATIBLE_BASE_URL").or_insert_with(|| self.model_url.clone());
        for purpose in Signs::ALL {
            let (variable, public) = SigningKey::ready(&self.options.state, purpose)?.public_variable();
            variables.insert(variable, public);
        }
        if self.options.database_url.is_none() {
            variables.insert("DATABASE_URL", api_login(&self.database_url).await?);
        }
        variables.extend(self.options.variables.clone());
        Ok(HostConfig {
            root,
            cargo_lambda: env.program("cargo-lambda"),
            variables,
            inherited: Inherited::All,
            logs: self.options.state.join("logs"),
            changes,
            pid_file: self.pid_file.clone(),
            http: self.http.clone(),
            processes: table::poll(PROCESS_POLL_PERIOD),
        })
    }

    /// The same for queue functions and the sweeper, with the database login of workers.
    async fn worker_host_config(&self, host_config: &HostConfig, runner_port: u16) -> Result<HostConfig> {
        let mut workers = host_config.clone();
        workers.variables.insert("AWS_ENDPOINT_URL_LAMBDA", format!("http://127.0.0.1:{runner_port}"));
        if self.options.database_url.is_none() {
            workers.variables.insert("DATABASE_URL", worker_login(&self.database_url).await?);
        }
        Ok(workers)
    }

    /// Starts the function that runs the commands of gates. It gets no database, no credentials and no endpoint.
    fn start_gate_runner(&mut self, host_config: &HostConfig, port: u16) -> Health {
        let variables = environment::gate_runner(&host_config.variables);
        let config = HostConfig { variables, inherited: Inherited::Toolchain, ..host_config.clone() };
        let functions = vec![WarmUp::Start { function: GATE_RUNNER }];
        // As many as `gate` has, because each attempt waits for one.
        let host = Host { name: GATE_RUNNER, functions, port, processes: 2, runtime: None, config };
        let (health, running) = host.start();
        self.tiers.push(vec![running]);
        health
    }

    /// Starts the gateway on `http_port`, and the Runtime API from which the HTTP functions take requests.
    async fn start_gateway(&mut self, ports: &mut Ports, http_port: u16) -> Result<(Runtime, Part)> {
        let routes = Routes::load(&self.checkout).await?;
        let functions = Arc::new(Functions::new(routes.functions()));
        let gateway =
            serve(http_port, Gateway::new(routes, Arc::clone(&functions)).router(), || (), Some(HEAD_LIMIT)).await?;
        let (mut runtime_ports, mut servers) = (BTreeMap::new(), Vec::new());
        for (name, function) in functions.iter() {
            let port = ports.pick(&format!("{name}-runtime"))?;
            let process = Arc::clone(function);
            let api = server::only_local_hosts(Arc::clone(function).router());
            servers.push(serve(port, api, move || process.connection_guard(), None).await?);
            runtime_ports.insert(name.to_owned(), port);
        }
        // They stop after the functions, so that requests in flight are still answered when the stack stops.
        self.tiers.push(servers);
        Ok((Runtime::at(&runtime_ports, self.options.state.join("run-function.sh"))?, gateway))
    }

    fn start_hosts(
        &mut self,
        [host_config, workers]: [&HostConfig; 2],
        runtime: Runtime,
        gateway: Part,
        queues: &[(QueueFunction, Queue)],
        aws: &Aws,
        ports: &mut Ports,
    ) -> Result<Vec<(&'static str, Health)>> {
        let (mut healths, mut hosts, mut sources) = (Vec::new(), Vec::new(), vec![gateway]);
        let state = &self.options.state;
        let keys: Vec<SigningKey> =
            Signs::ALL.into_iter().map(|purpose| SigningKey::ready(state, purpose)).collect::<Result<_>>()?;
        let mut start = |name, functions, port, processes, runtime: Option<Runtime>| {
            let mut host_config = if runtime.is_some() { host_config } else { workers }.clone();
            for (variable, value) in keys.iter().filter_map(|key| key.variable_of(name)) {
                host_config.variables.entry(variable).or_insert(value);
            }
            let (health, part) = Host { name, functions, port, processes, runtime, config: host_config }.start();
            healths.push((name, health.clone()));
            hosts.push(part);
            health
        };
        let http_functions = HTTP_FUNCTIONS.iter().map(|&function| WarmUp::Start { function }).collect();
        start(HTTP_HOST, http_functions, ports.pick("http-host")?, 1, Some(runtime));
        let wait_s = if self.options.aws_endpoint.is_some() { WAIT_SHORT_S } else { WAIT_MAX_S };
        for (function, queue) in queues {
            let (function, name) = (*function, function.name());
            let warm_up = WarmUp::Event { function: name, body: r#"{"Records":[]}"# };
            let port = ports.pick(name)?;
            let health = start(name, vec![warm_up], port, function.processes, None);
            let (stop_sender, stop) = stop::channel();
            let (aws, http, queue) = (aws.clone(), self.http.clone(), queue.clone());
            let tasks = EventSource { function, queue, wait_s, port, aws, http, health }.start(&stop);
            sources.push(Part { stop_sender, tasks, limit: DRAIN_LIMIT });
        }
        let port = ports.pick(SWEEPER)?;
        start(SWEEPER, vec![WarmUp::NotNeeded { function: SWEEPER }], port, 1, None);
        let (stop_sender, stop) = stop::channel();
        let task = schedule::start(port, self.options.sweep_period, self.http.clone(), stop);
        sources.push(Part { stop_sender, tasks: vec![task], limit: DRAIN_LIMIT });
        self.tiers.extend([hosts, sources]);
        Ok(healths)
    }

    async fn wait_ready(&self, healths: Vec<(&'static str, Health)>) -> Result<()> {
        for (name, mut health) in healths {
            if tokio::time::timeout(READY_LIMIT, health.ready()).await.is_err() {
                bail!("{name} does not start, see {}", self.options.state.join(format!("logs/{name}.log")).display());
            }
        }
        Ok(())
    }

    async fn check_health(&self, http_port: u16) -> Result<()> {
        let url = format!("http://127.0.0.1:{http_port}/health");
        let start = Instant::now();
        loop {
            let answer = match self.http.get(&url).timeout(Duration::from_secs(35)).send().await {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response) => format!("{}: {}", response.status(), response.text().await.unwrap_or_default()),
                Err(error) => error.to_string(),
            };
            if start.elapsed() > READY_LIMIT {
                bail!("the API is not healthy: GET {url} returned {answer}");
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Serves the stand-in for a model on `port`.
pub async fn serve_model(checkout: &Checkout, port: u16) -> Result<Part> {
    let router = server::only_local_hosts(ScriptedModel::of(checkout).router());
    serve(port, router, || (), Some(HEAD_LIMIT)).await
}

/// Serves `router` on `port`; see [`server::serve`].
async fn serve<P: Send + 'static>(
    port: u16,
    router: Router,
    connection_guard: impl Fn() -> P + Send + 'static,
    head_limit: Option<Duration>,
) -> Result<Part> {
    let listener = server::listen(port).await.with_context(|| format!("cannot listen on port {port}"))?;
    let (stop_sender, stop) = stop::channel();
    let tasks = vec![tokio::spawn(server::serve(listener, router, connection_guard, head_limit, stop))];
    Ok(Part { stop_sender, tasks, limit: DRAIN_LIMIT })
}

/// Builds all functions at once and shows cargo's progress. Otherwise each watch would build its own, with output in a
/// log.
pub async fn build(checkout: &Checkout, pid_file: &PidFile) -> Result<()> {
    let start = Instant::now();
    report::line("build", "building the functions");
    let mut command = Command::new("cargo");
    // Select the whole workspace, as a watch does. With other features, everything would be built again.
    command.args(["build", "--workspace"]);
    for name in function::names() {
        command.args(["--bin", name]);
    }
    command.current_dir(checkout.root());
    process::clear_inherited_env(&mut command);
    let termination = Termination::new(rustix::process::Signal::TERM, Duration::from_secs(3));
    let mut cargo = Process::spawn("cargo build", command, termination, pid_file).map_err(|error| {
        hinted(format!("{error:#}"), "install Rust: rustup installs the version in rust-toolchain.toml")
    })?;
    if !cargo.wait().await?.success() {
        bail!("the functions do not compile, see above");
    }
    report::took("build", "functions are built", start.elapsed());
    Ok(())
}

/// The period of the sweeper, from NOFX_SWEEP_SECONDS. The default is shorter than on AWS.
pub fn sweep_period() -> Result<Duration> {
    match env::var("NOFX_SWEEP_SECONDS") {
        Ok(text) => match text.parse::<u64>() {
            Ok(seconds) if (1..=3600).contains(&seconds) => Ok(Duration::from_secs(seconds)),
            _ => Err(hinted(format!("NOFX_SWEEP_SECONDS is {text:?}"), "set it to a number of seconds from 1 to 3600")),
        },
        Err(_) => Ok(Duration::from_secs(10)),
    }
}

/// Fails if `port` is in use.
pub fn check_port(port: u16) -> Result<()> {
    if port::is_free(port) {
        return Ok(());
    }
    Err(hinted(
        format!("port {port} is in use by another program"),
        format!("choose another port: nofx dev --port {}", port.checked_add(1).unwrap_or(3000)),
    ))
}
