//! A `cargo lambda watch`, kept alive together with the functions it runs. Each queue function has a host of its own:
//! a host whose function died is started again whole, and must not take other functions with it.

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
use crate::lambda::vitals::{Change, Child, Vitals};
use crate::process::stop::{self, Stop};
use crate::process::supervision::{Backoff, Part};
use crate::process::table::{self, Row};
use crate::process::{self, Ending, Family, Ledger, Process};
use crate::{port, report};

const LISTEN_LIMIT: Duration = Duration::from_secs(30);
/// A first invocation may wait for a whole build.
const WARM_LIMIT: Duration = Duration::from_mins(20);
const ENDING: Ending = Ending::new(Signal::TERM, Duration::from_secs(3));
/// How much of a log is searched for the reason of a failed build.
const LOG_TAIL_BYTES: u64 = 64 * 1024;

/// What all hosts of a stack share.
#[derive(Clone, Debug)]
pub struct Workshop {
    /// The directory of the Cargo workspace.
    pub root: PathBuf,
    pub cargo_lambda: PathBuf,
    /// The environment of the functions.
    pub variables: BTreeMap<&'static str, String>,
    pub logs: PathBuf,
    /// A gitignore-style file of what is no reason to build again.
    pub ignore_file: PathBuf,
    /// Whether functions are built again when a file changes.
    pub reload: bool,
    pub ledger: Ledger,
    pub http: reqwest::Client,
    pub census: watch::Receiver<Arc<Vec<Row>>>,
}

/// A request that makes a host start one of its functions: they are lazy.
#[derive(Clone, Debug)]
pub enum WarmUp {
    /// An event with this body.
    Event { function: &'static str, body: &'static str },
    /// A request that starts the function and that nobody answers: it asks the stack's own Runtime API for work.
    Start { function: &'static str },
    /// Somebody else invokes it anyway.
    Elsewhere { function: &'static str },
}

impl WarmUp {
    fn function(&self) -> &'static str {
        match self {
            Self::Event { function, .. } | Self::Start { function } | Self::Elsewhere { function } => function,
        }
    }
}

/// One host.
#[derive(Clone, Debug)]
pub struct Host {
    pub name: &'static str,
    pub functions: Vec<WarmUp>,
    pub port: u16,
    /// Processes of each function.
    pub processes: u32,
    /// The Runtime API of its functions, in place of cargo-lambda's.
    pub runtime: Option<Runtime>,
    pub workshop: Workshop,
}

/// A Runtime API of ours. cargo-lambda sets the address of its own for every function it starts and lets nobody set
/// another one; but it starts them with `cargo run`, and cargo runs them through the program that `runner` names.
#[derive(Clone, Debug)]
pub struct Runtime {
    script: PathBuf,
}

impl Runtime {
    /// With a port for each function; the script that says so to them is written to `script`.
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

    /// What tells cargo to run programs through the script. A string of JSON is one of TOML as well.
    fn cargo_config(&self) -> String {
        let script = serde_json::Value::from(self.script.to_string_lossy());
        format!("target.'cfg(all())'.runner = [\"/bin/sh\", {script}]")
    }
}

/// Whether the functions of a host can be asked.
#[derive(Clone, Debug)]
pub struct Health(watch::Receiver<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    ready: bool,
    /// Goes up whenever a process of the host is lost.
    epoch: u64,
}

impl Health {
    pub async fn ready(&mut self) {
        if self.0.wait_for(|state| state.ready).await.is_err() {
            // The host is gone for good: nobody will be ready, and who waits is about to be stopped as well.
            std::future::pending::<()>().await;
        }
    }

    pub fn epoch(&self) -> u64 {
        self.0.borrow().epoch
    }

    /// Returns once a process was lost after `epoch`.
    pub async fn changed_since(&mut self, epoch: u64) {
        if self.0.wait_for(|state| state.epoch != epoch).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Why a host is no longer running.
enum End {
    Asked,
    Problem(String),
}

impl Host {
    /// Starts the host and keeps it running.
    pub fn start(self) -> (Health, Part) {
        let (stopper, stop) = stop::channel();
        let (state, health) = watch::channel(State::default());
        let task = tokio::spawn(self.keep(state, stop));
        (Health(health), Part { stopper, tasks: vec![task], limit: Duration::from_secs(15) })
    }

    pub fn log(&self) -> PathBuf {
        self.workshop.logs.join(format!("{}.log", self.name))
    }

    async fn keep(self, state: watch::Sender<State>, mut stop: Stop) {
        let mut backoff = Backoff::new();
        loop {
            backoff.started();
            let problem = match self.run(&state, &mut stop).await {
                Ok(End::Asked) => return,
                Ok(End::Problem(problem)) => problem,
                Err(error) => format!("{error:#}"),
            };
            state.send_modify(|state| *state = State { ready: false, epoch: state.epoch + 1 });
            report::line(self.name, format_args!("{problem}: starting it again"));
            tokio::select! {
                () = stop.asked() => return,
                () = sleep(backoff.next_pause()) => {}
            }
        }
    }

    /// One life of the host, from its start to its end.
    async fn run(&self, state: &watch::Sender<State>, stop: &mut Stop) -> Result<End> {
        let log_start = fs::metadata(self.log()).map_or(0, |metadata| metadata.len());
        let mut watch = self.spawn()?;
        tokio::select! {
            () = stop.asked() => {
                watch.end().await;
                return Ok(End::Asked);
            }
            status = watch.wait() => bail!("ended ({}) while it started, see {}", status?, self.log().display()),
            accepts = port::accepts(self.port, LISTEN_LIMIT) => if !accepts {
                watch.end().await;
                bail!("does not listen on port {}, see {}", self.port, self.log().display());
            }
        }
        let _warm_ups = self.warm_up();
        let (pid, family) = (watch.pid(), watch.family());
        let end = tokio::select! {
            () = stop.asked() => End::Asked,
            status = watch.wait() => End::Problem(format!("ended ({})", status?)),
            problem = self.look_after(pid, &family, log_start, state) => End::Problem(problem),
        };
        watch.end().await;
        Ok(end)
    }

    fn spawn(&self) -> Result<Process> {
        let mut command = Command::new(&self.workshop.cargo_lambda);
        command.args(["lambda", "watch", "--invoke-address", "127.0.0.1", "--disable-cors", "--color", "never"]);
        command.args(["--invoke-port", &self.port.to_string(), "--concurrency", &self.processes.to_string()]);
        if !self.workshop.reload {
            command.arg("--ignore-changes");
        }
        if let Some(runtime) = &self.runtime {
            command.args(["--config", &runtime.cargo_config()]);
        }
        command.current_dir(&self.workshop.root);
        process::keep_back(&mut command);
        command.envs(&self.workshop.variables);
        command.env("CARGO_LAMBDA_IGNORE_FILE", &self.workshop.ignore_file);
        process::log_to(&mut command, &self.log())?;
        Process::spawn(self.name, command, ENDING, &self.workshop.ledger)
    }

    /// Asks every function something, so that it starts; the requests end with the set.
    fn warm_up(&self) -> JoinSet<()> {
        let mut warm_ups = JoinSet::new();
        for function in &self.functions {
            let base = format!("http://127.0.0.1:{}", self.port);
            let http = &self.workshop.http;
            let request = match function {
                WarmUp::Event { function, body } => {
                    http.post(format!("{base}{}", invocation_path(function))).body(*body)
                }
                WarmUp::Start { function } => http.get(format!("{base}/lambda-url/{function}/")),
                WarmUp::Elsewhere { .. } => continue,
            };
            warm_ups.spawn(async move {
                let _ = request.timeout(WARM_LIMIT).send().await;
            });
        }
        warm_ups
    }

    /// Watches over the functions of the running watch `pid` until one of them needs it started again.
    async fn look_after(&self, pid: u32, family: &Family, log_start: u64, state: &watch::Sender<State>) -> String {
        let names: Vec<&str> = self.functions.iter().map(WarmUp::function).collect();
        let mut vitals = Vitals::new(&names);
        let mut census = self.workshop.census.clone();
        let mut log_start = log_start;
        while census.changed().await.is_ok() {
            let table = Arc::clone(&census.borrow_and_update());
            family.see(&table, pid);
            let rows: Vec<&Row> = table.iter().filter(|row| row.parent == pid).collect();
            let children: Vec<Child<'_>> = rows.iter().filter_map(|row| child(row, &names)).collect();
            for change in vitals.look(&children, Instant::now()) {
                match change {
                    Change::Gone(_) => state.send_modify(|state| state.epoch += 1),
                    Change::Died(name) => return format!("the process of {name} ended"),
                    Change::NotBuilt(name) => {
                        let (problem, end) = self.build_problem(log_start);
                        log_start = end;
                        match problem {
                            // With hot reload cargo-lambda builds again when a file changes; until then there is nothing to do.
                            Some(problem) if self.workshop.reload => report::line(
                                &name,
                                format_args!("does not compile: {problem} (see {})", self.log().display()),
                            ),
                            Some(problem) => return format!("{name} does not start: {problem}"),
                            None => return format!("{name} ends as soon as it starts, see {}", self.log().display()),
                        }
                    }
                }
            }
            let ready = vitals.all_well();
            state.send_if_modified(|state| {
                let changed = state.ready != ready;
                state.ready = ready;
                changed
            });
        }
        "nobody looks at the processes any more".to_owned()
    }

    /// The first compile error in the log after `start`, if there is one, and where the log ends now.
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

/// What a child of the watch is to its functions.
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
    fn a_function_runs_with_its_own_port_of_our_runtime_api() {
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
