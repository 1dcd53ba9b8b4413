//! A local stack: Postgres, the AWS emulator, the functions, and what AWS does between them. Started in this order,
//! stopped in reverse.

pub mod docker;
pub mod environment;

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
use crate::front::routes::Routes;
use crate::front::runtime_api::Functions;
use crate::front::{Front, server};
use crate::function::{self, HTTP_FUNCTIONS, QueueFunction, SWEEPER};
use crate::lambda::event_source::{EventSource, WAIT_MAX_S, WAIT_SHORT_S};
use crate::lambda::host::{Health, Host, Runtime, WarmUp, Workshop};
use crate::lambda::schedule;
use crate::migrate::login::worker_login;
use crate::port::{self, Ports};
use crate::postgres::{Cluster, Postgres, Purpose};
use crate::process::supervision::{self, Part};
use crate::process::{self, Ending, Ledger, Process, stop, table};
use crate::report::{self, hinted};
use crate::throwaway::Throwaway;
use crate::tools::python::PythonEnv;
use crate::{database, migrate};

/// How often the process table is read: the longest a dead function stays unseen, on top of the grace of `vitals`.
const CENSUS_PERIOD: Duration = Duration::from_millis(400);
/// A client that sends no whole head of a request for so long is cut off.
const HEAD_LIMIT: Duration = Duration::from_mins(1);
const READY_LIMIT: Duration = Duration::from_mins(3);
/// Invocations in flight may end within this time when the stack stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// Nothing below these changes a function.
const NO_REASON_TO_BUILD: &str = "/.git/\n/.local/\n/target/\n/cli/\n/local/\n/perf/\n/tests/\n/examples/\n/migrations/\n/supabase/\n/localstack/\n*.md\nnode_modules/\n";

/// What kind of stack.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its files are.
    pub state: PathBuf,
    /// The port of the API; `None` starts no functions.
    pub http_port: Option<u16>,
    /// Whether functions are built again when a file changes.
    pub reload: bool,
    pub purpose: Purpose,
    /// A database and an AWS endpoint of the user's own: then none is started.
    pub database_url: Option<String>,
    pub aws_endpoint: Option<String>,
    /// What the functions are told beyond that, in place of the stack's own values.
    pub variables: BTreeMap<&'static str, String>,
    /// The services of the emulator; all if none are named.
    pub services: Option<&'static str>,
    pub sweep_period: Duration,
}

impl Options {
    /// A stack of its own, for one command; see [`Options::http_port`].
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
        })
    }
}

/// A stack, complete or on its way there.
#[derive(Debug)]
pub struct Stack {
    checkout: Checkout,
    options: Options,
    ledger: Ledger,
    http: reqwest::Client,
    /// What was started, in order; the parts of a tier do not depend on each other.
    tiers: Vec<Vec<Part>>,
    pub database_url: String,
    pub aws_endpoint: String,
}

impl Stack {
    pub fn new(checkout: Checkout, options: Options, ledger: Ledger) -> Self {
        Self {
            checkout,
            options,
            ledger,
            http: reqwest::Client::new(),
            tiers: Vec::new(),
            database_url: String::new(),
            aws_endpoint: String::new(),
        }
    }

    /// Starts everything. What was started before an error is still running afterwards: call [`Stack::stop`].
    pub async fn start(&mut self) -> Result<()> {
        let logs = self.options.state.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        let env = PythonEnv::ready(&self.checkout, &self.ledger).await?;
        let mut ports = Ports::load(self.options.state.join("ports.json"));
        self.start_postgres(&env, &mut ports).await?;
        self.start_emulator(&env, &mut ports).await?;
        if let Some(http_port) = self.options.http_port {
            ports.set("http", http_port)?;
            self.start_functions(&env, &mut ports, http_port).await?;
        }
        Ok(())
    }

    /// Stops everything, the last started first.
    pub async fn stop(&mut self) {
        while let Some(tier) = self.tiers.pop() {
            join_all(tier.into_iter().map(Part::stop)).await;
        }
    }

    /// Ends everything without asking: for whom a stop takes too long.
    pub async fn kill(&self) {
        // Asked first, the supervisors do not start again what is killed under them.
        for part in self.tiers.iter().flatten() {
            part.stopper.ask();
        }
        self.ledger.kill_all().await;
    }

    async fn start_postgres(&mut self, env: &PythonEnv, ports: &mut Ports) -> Result<()> {
        let start = Instant::now();
        if let Some(url) = &self.options.database_url {
            database::check(url).await?;
            self.database_url.clone_from(url);
            report::took("postgres", "the one of DATABASE_URL answers", start.elapsed());
            return Ok(());
        }
        let postgres = Postgres::find_for(env, &self.checkout, &self.options.state).await?;
        let cache = self.checkout.local().join("cache");
        let dir = self.options.state.join("postgres");
        postgres.create(&cache, &dir, self.options.purpose, &self.ledger).await?;
        let cluster = Cluster::open(dir, ports.pick("postgres")?)?;
        let log = self.options.state.join("logs/postgres.log");
        let server = postgres.start(&cluster, &log, &self.ledger).await?;
        self.database_url = cluster.url();
        report::took("postgres", format_args!("ready on 127.0.0.1:{}", cluster.port), start.elapsed());

        let ledger = self.ledger.clone();
        self.tiers.push(vec![supervision::keep("postgres", server, move || {
            let (postgres, cluster, log, ledger) = (postgres.clone(), cluster.clone(), log.clone(), ledger.clone());
            async move { postgres.start(&cluster, &log, &ledger).await }
        })]);
        Ok(())
    }

    async fn start_emulator(&mut self, env: &PythonEnv, ports: &mut Ports) -> Result<()> {
        let start = Instant::now();
        if let Some(endpoint) = &self.options.aws_endpoint {
            self.aws_endpoint.clone_from(endpoint);
            report::line("emulator", format_args!("the one of AWS_ENDPOINT_URL, {endpoint}"));
            return Ok(());
        }
        let dir = self.options.state.join("emulator");
        let port = ports.pick("emulator")?;
        let emulator = Emulator::new(env, dir, port, self.options.services);
        let log = self.options.state.join("logs/emulator.log");
        let process = emulator.start(&log, &self.ledger).await?;
        self.aws_endpoint = emulator.url();
        report::took("emulator", format_args!("SQS, S3, Secrets Manager on 127.0.0.1:{port}"), start.elapsed());

        let (ledger, aws, prefix) = (self.ledger.clone(), Aws::new(&emulator.url()), environment::queue_prefix());
        let with_resources = self.options.http_port.is_some();
        let dotenv = self.checkout.dotenv()?;
        self.tiers.push(vec![supervision::keep("emulator", process, move || {
            let (emulator, log, ledger) = (emulator.clone(), log.clone(), ledger.clone());
            let (aws, prefix, dotenv) = (aws.clone(), prefix.clone(), dotenv.clone());
            async move {
                let process = emulator.start(&log, &ledger).await?;
                // It saves queues only when it ends well: after a crash they are made again, and the sweeper sends
                // the wake-ups that were lost with them.
                if with_resources {
                    aws.make_resources(&prefix, &dotenv).await?;
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
        let queues = aws.make_resources(&environment::queue_prefix(), &dotenv).await?;
        report::took("resources", format_args!("{} queues, bucket, secret", 2 * queues.len()), start.elapsed());

        let start = Instant::now();
        let count = migrate::migrate(&self.database_url, &self.checkout.migrations()).await?;
        if self.options.database_url.is_none() {
            migrate::seed(&self.database_url, &self.checkout.seed()).await?;
        }
        report::took("migrate", format_args!("{count} applied"), start.elapsed());

        build(&self.checkout, &self.ledger).await?;
        let start = Instant::now();
        let workshop = self.workshop(env, &dotenv, http_port)?;
        let workers = self.workshop_of_workers(&workshop).await?;
        let (runtime, front) = self.start_front(ports, http_port).await?;
        let healths = self.start_hosts([&workshop, &workers], runtime, front, &queues, &aws, ports)?;
        self.wait_ready(healths).await?;
        self.check_health(http_port).await?;
        report::took("functions", format_args!("ready on 127.0.0.1:{http_port}"), start.elapsed());
        Ok(())
    }

    fn workshop(&self, env: &PythonEnv, dotenv: &BTreeMap<String, String>, http_port: u16) -> Result<Workshop> {
        let ignore_file = self.options.state.join("watch-ignore");
        fs::write(&ignore_file, NO_REASON_TO_BUILD)
            .with_context(|| format!("cannot write {}", ignore_file.display()))?;
        let mut variables =
            environment::functions(&self.checkout, &self.database_url, &self.aws_endpoint, http_port, dotenv);
        variables.extend(self.options.variables.clone());
        Ok(Workshop {
            root: self.checkout.root().to_owned(),
            cargo_lambda: env.program("cargo-lambda"),
            variables,
            logs: self.options.state.join("logs"),
            ignore_file,
            reload: self.options.reload,
            ledger: self.ledger.clone(),
            http: self.http.clone(),
            census: table::census(CENSUS_PERIOD),
        })
    }

    /// The same for the functions behind queues and the sweeper, with a database login of their own. A database of the user's
    /// own has the login that the user chose.
    async fn workshop_of_workers(&self, workshop: &Workshop) -> Result<Workshop> {
        let mut workers = workshop.clone();
        if self.options.database_url.is_none() {
            workers.variables.insert("DATABASE_URL", worker_login(&self.database_url).await?);
        }
        Ok(workers)
    }

    /// Starts the front on `http_port`, and behind it the Runtime API from which the HTTP functions take requests.
    async fn start_front(&mut self, ports: &mut Ports, http_port: u16) -> Result<(Runtime, Part)> {
        let routes = Routes::load(&self.checkout).await?;
        let functions = Arc::new(Functions::new(routes.functions()));
        let front =
            serve(http_port, Front::new(routes, Arc::clone(&functions)).router(), || (), Some(HEAD_LIMIT)).await?;
        let (mut runtime_ports, mut servers) = (BTreeMap::new(), Vec::new());
        for (name, function) in functions.iter() {
            let port = ports.pick(&format!("{name}-runtime"))?;
            let process = Arc::clone(function);
            servers.push(serve(port, Arc::clone(function).router(), move || process.presence(), None).await?);
            runtime_ports.insert(name.to_owned(), port);
        }
        // They outlive the functions, so that what those are answering when the stack stops still goes out.
        self.tiers.push(servers);
        Ok((Runtime::at(&runtime_ports, self.options.state.join("run-function.sh"))?, front))
    }

    fn start_hosts(
        &mut self,
        [workshop, workers]: [&Workshop; 2],
        runtime: Runtime,
        front: Part,
        queues: &[(QueueFunction, Queue)],
        aws: &Aws,
        ports: &mut Ports,
    ) -> Result<Vec<(&'static str, Health)>> {
        let (mut healths, mut hosts, mut sources) = (Vec::new(), Vec::new(), vec![front]);
        let mut start = |name, functions, port, processes, runtime: Option<Runtime>| {
            let workshop = if runtime.is_some() { workshop } else { workers }.clone();
            let (health, part) = Host { name, functions, port, processes, runtime, workshop }.start();
            healths.push((name, health.clone()));
            hosts.push(part);
            health
        };
        let http_functions = HTTP_FUNCTIONS.iter().map(|&function| WarmUp::Start { function }).collect();
        start("http", http_functions, ports.pick("http-host")?, 1, Some(runtime));
        let wait_s = if self.options.aws_endpoint.is_some() { WAIT_SHORT_S } else { WAIT_MAX_S };
        for (function, queue) in queues {
            let (function, name) = (*function, function.name());
            let warm_up = WarmUp::Event { function: name, body: r#"{"Records":[]}"# };
            let port = ports.pick(name)?;
            let health = start(name, vec![warm_up], port, function.processes, None);
            let (stopper, stop) = stop::channel();
            let (aws, http, queue) = (aws.clone(), self.http.clone(), queue.clone());
            let tasks = EventSource { function, queue, wait_s, port, aws, http, health }.start(&stop);
            sources.push(Part { stopper, tasks, limit: DRAIN_LIMIT });
        }
        let port = ports.pick(SWEEPER)?;
        start(SWEEPER, vec![WarmUp::Elsewhere { function: SWEEPER }], port, 1, None);
        let (stopper, stop) = stop::channel();
        let task = schedule::start(port, self.options.sweep_period, self.http.clone(), stop);
        sources.push(Part { stopper, tasks: vec![task], limit: DRAIN_LIMIT });
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
                bail!("the API is not healthy: GET {url} gave {answer}");
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Serves `router` on `port`; see [`server::serve`].
async fn serve<P: Send + 'static>(
    port: u16,
    router: Router,
    presence: impl Fn() -> P + Send + 'static,
    head_limit: Option<Duration>,
) -> Result<Part> {
    let listener = server::listen(port).await.with_context(|| format!("cannot listen on port {port}"))?;
    let (stopper, stop) = stop::channel();
    let tasks = vec![tokio::spawn(server::serve(listener, router, presence, head_limit, stop))];
    Ok(Part { stopper, tasks, limit: DRAIN_LIMIT })
}

/// Builds all functions at once, with cargo's own progress: each watch would build its own, unseen.
pub async fn build(checkout: &Checkout, ledger: &Ledger) -> Result<()> {
    let start = Instant::now();
    report::line("build", "building the functions");
    let mut command = Command::new("cargo");
    // The whole workspace is selected, as it is in a watch: other features would build everything again.
    command.args(["build", "--workspace"]);
    for name in function::names() {
        command.args(["--bin", name]);
    }
    command.current_dir(checkout.root());
    process::keep_back(&mut command);
    let ending = Ending::new(rustix::process::Signal::TERM, Duration::from_secs(3));
    let mut cargo = Process::spawn("cargo build", command, ending, ledger).map_err(|error| {
        hinted(format!("{error:#}"), "Rust is needed: rustup installs the version that rust-toolchain.toml names")
    })?;
    if !cargo.wait().await?.success() {
        bail!("the functions do not compile, see above");
    }
    report::took("build", "functions are built", start.elapsed());
    Ok(())
}

/// The period of the sweeper: short on a laptop, where somebody is watching.
pub fn sweep_period() -> Result<Duration> {
    match env::var("NOFX_SWEEP_SECONDS") {
        Ok(text) => match text.parse::<u64>() {
            Ok(seconds) if (1..=3600).contains(&seconds) => Ok(Duration::from_secs(seconds)),
            _ => Err(hinted(format!("NOFX_SWEEP_SECONDS is {text:?}"), "it takes a number of seconds from 1 to 3600")),
        },
        Err(_) => Ok(Duration::from_secs(10)),
    }
}

/// An error unless `port` can be listened on.
pub fn check_port(port: u16) -> Result<()> {
    if port::is_free(port) {
        return Ok(());
    }
    Err(hinted(
        format!("port {port} is taken by another program"),
        format!("choose another one: nofx dev --port {}", port.checked_add(1).unwrap_or(3000)),
    ))
}
