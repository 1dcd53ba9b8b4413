//! Runs and supervises a `cargo lambda watch` and its functions. Each queue function has its own host, because a host
//! whose function died is restarted as a whole.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::function::invocation_path;
use crate::lambda::liveness::{Change, Child, Liveness};
use crate::process::stop::{self, StopSignal};
use crate::process::supervision::{Backoff, Part};
use crate::process::table::{self, Row};
use crate::process::{self, Descendants, PidFile, Process, Termination};
use crate::{port, report};

const LISTEN_LIMIT: Duration = Duration::from_secs(30);
/// The first invocation may wait for a complete build.
const WARM_LIMIT: Duration = Duration::from_mins(20);
const TERMINATION: Termination = Termination::new(Signal::TERM, Duration::from_secs(3));
/// How much of a log is searched for the reason of a failed build.
const LOG_TAIL_BYTES: u64 = 64 * 1024;

/// Settings that all hosts of a stack share.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The directory of the Cargo workspace.
    pub root: PathBuf,
    pub cargo_lambda: PathBuf,
    /// The environment of the functions.
    pub variables: BTreeMap<&'static str, String>,
    /// Which variables of this process they get besides.
    pub inherited: Inherited,
    pub logs: PathBuf,
    /// Changes of files. Each causes a build.
    pub changes: watch::Receiver<u64>,
    pub pid_file: PidFile,
    pub http: reqwest::Client,
    pub processes: watch::Receiver<Arc<Vec<Row>>>,
}

/// The variables of the stack's own process that a function gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherited {
    /// All but those of the tools that started the stack.
    All,
    /// Those that cargo needs to run it. For a function that must hold no credentials.
    Toolchain,
}

const TOOLCHAIN: [&str; 11] = [
    "PATH",
    "HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "TMPDIR",
    // What decides how cargo builds: with other values than those of the build before, it would build everything again.
    "CARGO_INCREMENTAL",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
];

/// A request that makes a host start one of its functions. cargo-lambda starts them on the first request.
#[derive(Clone, Debug)]
pub enum WarmUp {
    /// Send an event with this body.
    Event { function: &'static str, body: &'static str },
    /// Send a request that starts the function. It gets no answer, because the function uses the stack's own Runtime
    /// API.
    Start { function: &'static str },
    /// Send nothing, because something else invokes the function.
    NotNeeded { function: &'static str },
}

impl WarmUp {
    fn function(&self) -> &'static str {
        match self {
            Self::Event { function, .. } | Self::Start { function } | Self::NotNeeded { function } => function,
        }
    }
}

/// A host.
#[derive(Clone, Debug)]
pub struct Host {
    pub name: &'static str,
    pub functions: Vec<WarmUp>,
    pub port: u16,
    /// Processes of each function.
    pub processes: u32,
    /// The Runtime API of its functions, instead of cargo-lambda's.
    pub runtime: Option<Runtime>,
    pub config: HostConfig,
}

/// Makes functions use the stack's own Runtime API. cargo-lambda always sets the address of its own one. But it starts
/// functions with `cargo run`, which runs them through the program that the setting `runner` names.
#[derive(Clone, Debug)]
pub struct Runtime {
    script: PathBuf,
}

impl Runtime {
    /// Writes a script that sets the address for each function. `ports` has the port of each.
    pub fn at(ports: &BTreeMap<String, u16>, script: PathBuf) -> Result<Self> {
        let mut text =
            "# Runs a function with the Runtime API of the local stack.\ncase \"$AWS_LAMBDA_FUNCTION_NAME\" in\n"
                .to_owned();
        for (name, port) in ports {
            let _ = writeln!(text, "{name}) export AWS_LAMBDA_RUNTIME_API=127.0.0.1:{port} ;;");
        }
        text.push_str("esac\nexec \"$@\"\n");
        fs::write(&script, text).with_context(|| format!("cannot write {}", script.display()))?;
        Ok(Self { script })
    }

    /// The setting that makes cargo run programs through the script. A JSON string is also a TOML string.
    fn cargo_config(&self) -> String {
        let script = serde_json::Value::from(self.script.to_string_lossy());
        format!("target.'cfg(all())'.runner = [\"/bin/sh\", {script}]")
    }
}

/// Whether the functions of a host can be invoked.
#[derive(Clone, Debug)]
pub struct Health(watch::Receiver<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    ready: bool,
    /// Increases whenever a process of the host is lost.
    epoch: u64,
}

impl Health {
    pub async fn ready(&mut self) {
        if self.0.wait_for(|state| state.ready).await.is_err() {
            // The host has stopped for good, and its callers are about to be stopped too.
            std::future::pending::<()>().await;
        }
    }

    pub fn epoch(&self) -> u64 {
        self.0.borrow().epoch
    }

    /// Returns when a process was lost after `epoch`.
    pub async fn changed_since(&mut self, epoch: u64) {
        if self.0.wait_for(|state| state.epoch != epoch).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Why a host ended.
enum End {
    Stopped,
    /// Its files have changed.
    Changed,
    Problem(String),
}

impl Host {
    /// Starts the host and restarts it whenever it ends.
    pub fn start(self) -> (Health, Part) {
        let (stop_sender, stop) = stop::channel();
        let (state, health) = watch::channel(State::default());
        let task = tokio::spawn(self.supervise(state, stop));
        (Health(health), Part { stop_sender, tasks: vec![task], limit: Duration::from_secs(15) })
    }

    pub fn log(&self) -> PathBuf {
        self.config.logs.join(format!("{}.log", self.name))
    }

    async fn supervise(self, state: watch::Sender<State>, mut stop: StopSignal) {
        let mut backoff = Backoff::new();
        loop {
            backoff.started();
            let problem = match self.run(&state, &mut stop).await {
                Ok(End::Stopped) => return,
                Ok(End::Changed) => None,
                Ok(End::Problem(problem)) => Some(problem),
                Err(error) => Some(format!("{error:#}")),
            };
            state.send_modify(|state| *state = State { ready: false, epoch: state.epoch + 1 });
            let Some(problem) = problem else { continue };
            report::line(self.name, format_args!("{problem}: restarting"));
            tokio::select! {
                () = stop.received() => return,
                () = sleep(backoff.next_pause()) => {}
            }
        }
    }

    /// Runs the host once.
    async fn run(&self, state: &watch::Sender<State>, stop: &mut StopSignal) -> Result<End> {
        let log_start = fs::metadata(self.log()).map_or(0, |metadata| metadata.len());
        let mut changes = self.config.changes.clone();
        changes.mark_unchanged();
        let mut watch = self.spawn()?;
        tokio::select! {
            () = stop.received() => {
                watch.end().await;
                return Ok(End::Stopped);
            }
            status = watch.wait() => bail!("ended ({}) while it started, see {}", status?, self.log().display()),
            accepts = port::accepts(self.port, LISTEN_LIMIT) => if !accepts {
                watch.end().await;
                bail!("does not listen on port {}, see {}", self.port, self.log().display());
            }
        }
        let _warm_ups = self.warm_up();
        let (pid, descendants) = (watch.pid(), watch.descendants());
        let end = tokio::select! {
            () = stop.received() => End::Stopped,
            // Without reload nothing sends changes.
            Ok(()) = changes.changed() => End::Changed,
            status = watch.wait() => End::Problem(format!("ended ({})", status?)),
            problem = self.monitor(pid, &descendants, log_start, state) => End::Problem(problem),
        };
        watch.end().await;
        Ok(end)
    }

    /// Whether the next change of a file builds the functions again.
    fn reloads(&self) -> bool {
        self.config.changes.has_changed().is_ok()
    }

    fn spawn(&self) -> Result<Process> {
        let mut command = Command::new(&self.config.cargo_lambda);
        command.args(["lambda", "watch", "--invoke-address", "127.0.0.1", "--disable-cors", "--color", "never"]);
        command.args(["--invoke-port", &self.port.to_string(), "--concurrency", &self.processes.to_string()]);
        // For each function it watches every folder below the one it runs in, also if it ignores changes. All of the checkout has
        // so many folders that a dozen functions reach the system's limit, and those that come last do not start.
        command.arg("--ignore-changes").arg("--manifest-path").arg(self.config.root.join("Cargo.toml"));
        command.current_dir(self.config.root.join("functions"));
        if let Some(runtime) = &self.runtime {
            command.args(["--config", &runtime.cargo_config()]);
        }
        match self.config.inherited {
            Inherited::All => process::clear_inherited_env(&mut command),
            Inherited::Toolchain => {
                command.env_clear();
                command.envs(TOOLCHAIN.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
            }
        }
        command.envs(&self.config.variables);
        process::log_to(&mut command, &self.log())?;
        Process::spawn(self.name, command, TERMINATION, &self.config.pid_file)
    }

    /// Sends each function a request, so that it starts. Dropping the set aborts the requests.
    fn warm_up(&self) -> JoinSet<()> {
        let mut warm_ups = JoinSet::new();
        for function in &self.functions {
            let base = format!("http://127.0.0.1:{}", self.port);
            let http = &self.config.http;
            let request = match function {
                WarmUp::Event { function, body } => {
                    http.post(format!("{base}{}", invocation_path(function))).body(*body)
                }
                WarmUp::Start { function } => http.get(format!("{base}/lambda-url/{function}/")),
                WarmUp::NotNeeded { .. } => continue,
            };
            warm_ups.spawn(async move {
                let _ = request.timeout(WARM_LIMIT).send().await;
            });
        }
        warm_ups
    }

    /// Monitors the functions of the watch `pid`. Returns the problem when one of them needs a restart.
    async fn monitor(
        &self,
        pid: u32,
        descendants: &Descendants,
        log_start: u64,
        state: &watch::Sender<State>,
    ) -> String {
        let names: Vec<&str> = self.functions.iter().map(WarmUp::function).collect();
        let mut liveness = Liveness::new(&names);
        let mut processes = self.config.processes.clone();
        let mut log_start = log_start;
        while processes.changed().await.is_ok() {
            let table = Arc::clone(&processes.borrow_and_update());
            descendants.update(&table, pid);
            let rows: Vec<&Row> = table.iter().filter(|row| row.parent == pid).collect();
            let children: Vec<Child<'_>> = rows.iter().filter_map(|row| child(row, &names)).collect();
            for change in liveness.update(&children, Instant::now()) {
                match change {
                    Change::Gone(_) => state.send_modify(|state| state.epoch += 1),
                    Change::Died(name) => return format!("the process of {name} ended"),
                    Change::NotBuilt(name) => {
                        let (problem, end) = self.build_problem(log_start);
                        log_start = end;
                        match problem {
                            Some(problem) if self.reloads() => report::line(
                                &name,
                                format_args!("does not compile: {problem} (see {})", self.log().display()),
                            ),
                            Some(problem) => return format!("{name} does not start: {problem}"),
                            None => return format!("{name} ends as soon as it starts, see {}", self.log().display()),
                        }
                    }
                }
            }
            let ready = liveness.all_running();
            state.send_if_modified(|state| {
                let changed = state.ready != ready;
                state.ready = ready;
                changed
            });
        }
        "the process table is no longer read".to_owned()
    }

    /// The first compile error in the log after `start`, if there is one, and the current end of the log.
    fn build_problem(&self, start: u64) -> (Option<String>, u64) {
        let read = || -> std::io::Result<(String, u64)> {
            let mut file = File::open(self.log())?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(start.min(end).max(end.saturating_sub(LOG_TAIL_BYTES))))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok((String::from_utf8_lossy(&bytes).into_owned(), end))
        };
        let (text, end) = read().unwrap_or_default();
        let problem = text.lines().find(|line| line.starts_with("error:") || line.starts_with("error["));
        (problem.map(|line| line.trim_start_matches("error: ").to_owned()), end)
    }
}

/// The function that a child process of the watch is or builds.
fn child<'a>(row: &Row, names: &[&'a str]) -> Option<Child<'a>> {
    if let Some(name) = names.iter().find(|name| **name == row.program) {
        return Some(Child::Function(name, row.pid));
    }
    if row.program != "cargo" {
        return None;
    }
    let arguments = table::arguments(row.pid);
    let mut words = arguments.split_whitespace().skip_while(|word| *word != "--bin");
    let built = words.nth(1)?;
    names.iter().find(|name| **name == built).map(|name| Child::Build(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_gets_its_own_port_of_the_runtime_api() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("a \"b\" c.sh");
        let ports = BTreeMap::from([("api".to_owned(), 4001), ("console".to_owned(), 4002)]);
        let runtime = Runtime::at(&ports, script.clone()).unwrap();
        assert!(runtime.cargo_config().ends_with(r#"a \"b\" c.sh"]"#), "{}", runtime.cargo_config());
        let output = std::process::Command::new("/bin/sh")
            .arg(script)
            .args(["/bin/sh", "-c", "echo $AWS_LAMBDA_RUNTIME_API"])
            .env("AWS_LAMBDA_FUNCTION_NAME", "console")
            .env("AWS_LAMBDA_RUNTIME_API", "http://127.0.0.1:9/.rt/console")
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "127.0.0.1:4002\n");
    }
}
