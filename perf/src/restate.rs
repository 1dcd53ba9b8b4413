//! `restate`: the engine's loads on Restate, alternating with the engine on the same machine in the same run.
//!
//! Restate comes from its npm package and runs with its defaults (one node, log synced to disk). Its chain is a service
//! in Rust (`perf/restate`): five steps that the handler runs itself, or five calls of another handler. Restate's clients
//! and service can only talk to its server over HTTP. The engine's clients and handlers are calls inside the benchmark,
//! and only its database is a server. So Restate's numbers include the cost of HTTP.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use nofx_local::checkout::Checkout;
use nofx_local::process::server::{self, Probe};
use nofx_local::process::{self, Process, Termination};
use nofx_local::throwaway::Throwaway;
use nofx_local::tools::node;
use nofx_local::{port, report};
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::json;
use tokio::process::Command;
use tokio::time::sleep;

use crate::engine::{self, LOADS, WARM_UP_RUNS};
use crate::load::STEPS_PER_RUN;
use crate::server::Server;
use crate::stats::{self, Times, float, rounded};

/// Number of rounds. The result is the median.
const ROUNDS: usize = 3;
/// Handlers of the service `Chain`.
const HANDLERS: [&str; 2] = ["runs", "calls"];
const STOP: Termination = Termination::new(Signal::TERM, Duration::from_secs(10));
const REGISTRATION_LIMIT: Duration = Duration::from_secs(20);

pub async fn run(server: &Server, checkout: &Checkout) -> Result<()> {
    let throwaway = Throwaway::make(checkout, "restate").await?;
    let result = compare(server, checkout, &throwaway).await;
    throwaway.end(result.is_ok());
    result
}

async fn compare(server: &Server, checkout: &Checkout, throwaway: &Throwaway) -> Result<()> {
    node::check().await?;
    let restate = Restate::start(checkout, throwaway).await?;
    for (runs, conc) in LOADS {
        let mut engine = Rounds::default();
        let mut restate_rounds = HANDLERS.map(|handler| (handler, Rounds::default()));
        for round in 1..=ROUNDS {
            report::line("restate", format_args!("round {round} of {ROUNDS}, {conc} in flight"));
            let measured = engine::measure(server, runs, conc).await?;
            engine.add(runs, measured.seconds, &measured.run_times);
            for (handler, rounds) in &mut restate_rounds {
                restate.load(handler, WARM_UP_RUNS, conc).await?;
                let (seconds, times) = restate.load(handler, runs, conc).await?;
                rounds.add(runs, seconds, &times);
            }
        }
        for (handler, rounds) in &restate_rounds {
            stats::print(&json!({
                "bench": "restate",
                "version": restate.version,
                "steps": handler,
                "runs": runs,
                "steps_per_run": STEPS_PER_RUN,
                "conc": conc,
                "steps_per_s": rounded(rounds.steps_per_s()),
                "run_p50_ms": rounded(rounds.run_p50_ms()),
                "engine_steps_per_s": rounded(engine.steps_per_s()),
                "engine_run_p50_ms": rounded(engine.run_p50_ms()),
                "engine_to_restate": rounded(engine.steps_per_s() / rounds.steps_per_s()),
            }));
        }
    }
    restate.stop().await;
    Ok(())
}

/// Results of each round.
#[derive(Default)]
struct Rounds {
    steps_per_s: Vec<f64>,
    run_p50_ms: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, runs: u64, seconds: f64, times: &Times) {
        self.steps_per_s.push(float(runs * STEPS_PER_RUN) / seconds);
        self.run_p50_ms.push(times.percentile_ms(50));
    }

    fn steps_per_s(&self) -> f64 {
        stats::median(&self.steps_per_s)
    }

    fn run_p50_ms(&self) -> f64 {
        stats::median(&self.run_p50_ms)
    }
}

/// A Restate server and the service that it calls.
struct Restate {
    version: String,
    ingress: String,
    http: reqwest::Client,
    server: Process,
    service: Process,
}

impl Restate {
    async fn start(checkout: &Checkout, throwaway: &Throwaway) -> Result<Self> {
        let program = install(checkout, throwaway).await?;
        let version = Command::new(&program).arg("--version").output().await.context("restate-server")?.stdout;
        let version = String::from_utf8_lossy(&version).trim().replace("restate-server ", "");

        let service_port = port::any_free()?;
        let mut command = Command::new(checkout.root().join("target/restate/release/restate-chain"));
        command.arg(service_port.to_string());
        process::log_to(&mut command, &throwaway.dir.join("service.log"))?;
        let service = Process::spawn("restate-chain", command, STOP, &throwaway.pid_file)?;

        let (ingress, admin, node) = (port::any_free()?, port::any_free()?, port::any_free()?);
        let mut command = Command::new(&program);
        command
            .args(["--no-logo", "--listen-mode", "tcp"])
            .current_dir(&throwaway.dir)
            .env("RESTATE_BASE_DIR", throwaway.dir.join("data"))
            .env("RESTATE_DISABLE_TELEMETRY", "true")
            .env("RESTATE_LOG_FILTER", "warn")
            .env("RESTATE_BIND_ADDRESS", format!("127.0.0.1:{node}"))
            .env("RESTATE_ADMIN__BIND_ADDRESS", format!("127.0.0.1:{admin}"))
            .env("RESTATE_INGRESS__BIND_ADDRESS", format!("127.0.0.1:{ingress}"));
        let probe = Probe { url: format!("http://127.0.0.1:{admin}/health"), status: StatusCode::OK };
        let log = throwaway.dir.join("server.log");
        let server = server::start_http("restate-server", command, STOP, &probe, &log, &throwaway.pid_file).await?;

        let restate = Self {
            version,
            ingress: format!("http://127.0.0.1:{ingress}"),
            http: reqwest::Client::new(),
            server,
            service,
        };
        restate.register(admin, service_port).await?;
        Ok(restate)
    }

    async fn stop(self) {
        self.server.end().await;
        self.service.end().await;
    }

    /// Registers the service, and waits until the server calls it.
    async fn register(&self, admin: u16, service: u16) -> Result<()> {
        let url = format!("http://127.0.0.1:{admin}/deployments");
        let body = json!({ "uri": format!("http://127.0.0.1:{service}") });
        let start = Instant::now();
        loop {
            let response = self.http.post(&url).json(&body).send().await?;
            if response.status().is_success() {
                // The partitions see the registration a little later.
                if self.call("runs").await.is_ok() {
                    return Ok(());
                }
            } else if start.elapsed() > REGISTRATION_LIMIT {
                bail!("restate-server rejects the service: {}", response.text().await?);
            }
            ensure!(start.elapsed() < REGISTRATION_LIMIT, "restate-server does not call the service");
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Calls a handler `runs` times with `conc` in flight. Returns the wall time in total and of each call.
    async fn load(&self, handler: &str, runs: u64, conc: usize) -> Result<(f64, Times)> {
        let (start, next) = (Instant::now(), AtomicU64::new(0));
        let clients = try_join_all((0..conc).map(|_| async {
            let mut times = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < runs {
                let start = Instant::now();
                self.call(handler).await?;
                times.push(start.elapsed());
            }
            Ok::<_, anyhow::Error>(times)
        }));
        let mut times = Times::default();
        times.extend(clients.await?.into_iter().flatten());
        Ok((start.elapsed().as_secs_f64(), times))
    }

    async fn call(&self, handler: &str) -> Result<()> {
        let response = self.http.post(format!("{}/Chain/{handler}", self.ingress)).json("hello").send().await?;
        let text: String = response.error_for_status()?.json().await?;
        ensure!(text == "hello", "the chain returned {text}");
        Ok(())
    }
}

/// Installs the server and builds the service. Returns the path of the server.
async fn install(checkout: &Checkout, throwaway: &Throwaway) -> Result<std::path::PathBuf> {
    let (source, dir) = (checkout.root().join("perf/restate"), checkout.local().join("restate"));
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source.join(file), dir.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    report::line("restate", "installing the server into .local/restate (about 80 MB), building the service");
    let mut npm = Command::new("npm");
    // The packages work without install scripts.
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&dir).stdout(Stdio::null());
    ensure!(process::run("npm ci", npm, &throwaway.pid_file).await?, "npm ci failed, see above");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--quiet", "--release", "--locked", "--target-dir"])
        .arg(checkout.root().join("target/restate"));
    cargo.arg("--manifest-path").arg(source.join("Cargo.toml"));
    ensure!(process::run("cargo build", cargo, &throwaway.pid_file).await?, "perf/restate does not compile, see above");
    let packages = dir.join("node_modules/@restatedev");
    let found = fs::read_dir(&packages).with_context(|| format!("cannot read {}", packages.display()))?;
    let programs = found.flatten().map(|entry| entry.path().join("bin/restate-server"));
    programs.into_iter().find(|path| path.is_file()).context("the npm packages have no restate-server for this machine")
}
