//! A local stack in a child process, and a client of its API.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nofx_local::process::table;
use reqwest::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::sleep;

/// Timeout of every wait. A cold start installs the sample's dependencies, and the steps of a killed function become ready
/// only after their lease.
const WAIT_TIMEOUT: Duration = Duration::from_mins(3);
const POLL_PERIOD: Duration = Duration::from_millis(200);

/// A running `nofx dev`.
pub struct Stack {
    child: Child,
    client: Client,
    url: String,
}

/// A process of the stack.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    pid: Pid,
    name: String,
}

/// The `nofx` command with its own state folder.
pub fn cargo_run(state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--bin", "nofx", "--"]).args(args);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.env("NOFX_STATE_DIR", state).env_remove("DATABASE_URL").env_remove("AWS_ENDPOINT_URL");
    command
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

impl Stack {
    /// Starts and waits until the API is healthy.
    pub async fn start(state: &Path, port: u16) -> Self {
        let child = cargo_run(state, &["dev", "--no-reload", "--port", &port.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .expect("start nofx dev");
        let client = Client::builder().timeout(Duration::from_secs(40)).build().expect("a client");
        let mut stack = Self { child, client, url: format!("http://127.0.0.1:{port}") };
        let start = Instant::now();
        while !stack.is_healthy().await {
            assert!(stack.child.try_wait().expect("a child").is_none(), "nofx dev exited");
            assert!(start.elapsed() < WAIT_TIMEOUT, "the API is not healthy");
            sleep(POLL_PERIOD).await;
        }
        stack
    }

    pub async fn until_healthy(&self) {
        let start = Instant::now();
        while !self.is_healthy().await {
            assert!(start.elapsed() < WAIT_TIMEOUT, "the API is not healthy again");
            sleep(POLL_PERIOD).await;
        }
    }

    /// Sends Ctrl-C and expects a clean exit.
    pub fn stop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("interrupt nofx dev");
        let ended = self.child.wait().expect("nofx dev ends");
        assert!(ended.success(), "nofx dev exited with {ended}");
    }

    async fn is_healthy(&self) -> bool {
        self.client.get(self.at("/health")).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    pub async fn submit(&self, body: &Value) -> String {
        let (status, answer) = self.post("/runs", body).await;
        assert_eq!(status, 201, "{answer}");
        answer["id"].as_str().expect("an id").to_owned()
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.client.post(self.at(path)).json(body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    pub async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.client.put(self.at(path)).json(body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    pub async fn get(&self, path: &str) -> Value {
        self.client.get(self.at(path)).send().await.expect("an answer").json().await.expect("JSON")
    }

    pub async fn text(&self, path: &str) -> String {
        self.client.get(self.at(path)).send().await.expect("an answer").text().await.expect("a page")
    }

    /// Waits until the run ends, and returns it.
    pub async fn follow(&self, run: &str) -> Value {
        self.until(run, &["succeeded", "failed", "cancelled"]).await
    }

    pub async fn wait_for(&self, run: &str, status: &str) {
        self.until(run, &[status]).await;
    }

    /// `kill -9` of a function's process.
    pub fn kill_function(&self, name: &str) {
        let killed = self.processes().into_iter().filter(|process| process.name == name);
        let count = killed.map(|process| kill_process(process.pid, Signal::KILL).expect("kill a function")).count();
        assert_eq!(count, 1, "one process of {name}");
    }

    /// The processes of a function.
    pub fn pids(&self, name: &str) -> Vec<Pid> {
        self.processes().into_iter().filter(|process| process.name == name).map(|process| process.pid).collect()
    }

    /// All processes below `nofx dev`.
    pub fn processes(&self) -> Vec<Process> {
        let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid=,comm="]).output().expect("ps");
        let table: Vec<(i32, i32, String)> = String::from_utf8_lossy(&listed.stdout)
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let (pid, parent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                let path = words.collect::<Vec<_>>().join(" ");
                Some((pid, parent, path.rsplit('/').next().unwrap_or_default().to_owned()))
            })
            .collect();
        let mut below = vec![i32::try_from(self.child.id()).expect("a pid")];
        let mut processes = Vec::new();
        while let Some(parent) = below.pop() {
            for (pid, _, name) in table.iter().filter(|(_, of, _)| *of == parent) {
                below.push(*pid);
                processes.push(Process { pid: Pid::from_raw(*pid).expect("a pid"), name: name.clone() });
            }
        }
        processes
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Waits until the run has one of these states, and returns it.
    pub async fn until(&self, run: &str, statuses: &[&str]) -> Value {
        let start = Instant::now();
        loop {
            let detail = self.get(&format!("/runs/{run}")).await;
            if statuses.iter().any(|status| detail["run"]["status"] == *status) {
                return detail;
            }
            assert!(start.elapsed() < WAIT_TIMEOUT, "the run is not {statuses:?}: {detail}");
            sleep(POLL_PERIOD).await;
        }
    }
}

impl Drop for Stack {
    /// Stops the stack if a test fails.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

impl Process {
    pub fn is_alive(&self) -> bool {
        // A zombie still has its pid, so look at the process table.
        u32::try_from(self.pid.as_raw_nonzero().get()).is_ok_and(|pid| table::find(pid).is_some())
    }
}
