//! `nofx dev --auth`: everybody logs in, also after a restart.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::stack::{cargo_run, free_port};

const START_LIMIT: Duration = Duration::from_mins(3);
const POLL_PERIOD: Duration = Duration::from_millis(200);

/// A running `nofx dev --auth`.
struct Stack {
    child: Child,
    url: String,
    http: Client,
    /// What it printed.
    lines: Arc<Mutex<Vec<String>>>,
}

impl Stack {
    async fn start(state: &Path, port: u16, users: &[&str]) -> Self {
        let mut command = cargo_run(state, &["dev", "--no-reload", "--auth", "--port", &port.to_string()]);
        command.args(users.iter().flat_map(|user| ["--user", user])).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start nofx dev");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (kept, stderr) = (Arc::clone(&lines), child.stderr.take().expect("its output"));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().expect("the lines").push(line);
            }
        });
        let mut stack = Self { child, url: format!("http://127.0.0.1:{port}"), http: Client::new(), lines };
        let start = Instant::now();
        // The last line of its summary.
        while !stack.printed("Ctrl-C stops the stack") {
            assert!(stack.child.try_wait().expect("a child").is_none(), "nofx dev exited: {:?}", stack.lines);
            assert!(start.elapsed() < START_LIMIT, "nofx dev does not start: {:?}", stack.lines);
            sleep(POLL_PERIOD).await;
        }
        stack
    }

    fn printed(&self, text: &str) -> bool {
        self.lines.lock().expect("the lines").iter().any(|line| line.contains(text))
    }

    /// The password of a user who is new.
    fn password(&self, email: &str) -> Option<String> {
        let lines = self.lines.lock().expect("the lines");
        let line = lines.iter().find(|line| line.starts_with("login") && line.contains(email))?;
        line.rsplit(' ').next().map(str::to_owned)
    }

    /// The answer of the issuer that the API names.
    async fn login(&self, state: &Path, email: &str, password: &str) -> (u16, Value) {
        let ports = std::fs::read(state.join("ports.json")).expect("the ports");
        let port = serde_json::from_slice::<Value>(&ports).expect("JSON")["issuer"].clone();
        let url = format!("http://127.0.0.1:{port}/auth/v1/token?grant_type=password");
        let request = self.http.post(url).header("apikey", "sb_publishable_nofx_dev");
        answer(request.json(&json!({ "email": email, "password": password }))).await
    }

    /// Sends a request with this token.
    async fn send(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        answer(if body.is_null() { request } else { request.json(body) }).await
    }

    fn stop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("interrupt nofx dev");
        let ended = self.child.wait().expect("nofx dev ends");
        assert!(ended.success(), "nofx dev exited with {ended}");
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn everybody_logs_in_and_keeps_role_and_password_over_a_restart() {
    let (state, port) = (tempfile::tempdir().expect("a folder"), free_port());
    let state = state.path();
    let mut stack = Stack::start(state, port, &["ben@local.test=viewer"]).await;
    let (admin, ben) = ("admin@local.test", "ben@local.test");
    let [admin_password, ben_password] = [admin, ben].map(|email| stack.password(email).expect("a password"));

    assert_eq!(stack.send("GET", "/runs", None, &Value::Null).await.0, 401);
    assert_eq!(stack.login(state, admin, &ben_password).await.0, 400);
    let token = async |stack: &Stack, email, password: &str| {
        let (status, session) = stack.login(state, email, password).await;
        assert_eq!(status, 200, "{session}");
        session["access_token"].as_str().expect("a token").to_owned()
    };
    let (admin_token, ben_token) =
        (token(&stack, admin, &admin_password).await, token(&stack, ben, &ben_password).await);
    let plan = json!({ "plan": { "goal": "who", "steps": [{ "name": "a", "tool": "echo" }] } });
    let (status, run) = stack.send("POST", "/runs", Some(&admin_token), &plan).await;
    assert_eq!(status, 201, "{run}");
    assert_eq!(stack.send("POST", "/runs", Some(&ben_token), &plan).await.0, 403);
    let path = format!("/runs/{}", run["id"].as_str().expect("an id"));
    let (_, shown) = stack.send("GET", &path, Some(&ben_token), &Value::Null).await;
    assert_eq!(shown["run"]["created_by"], admin, "{shown}");

    stack.stop();
    let stack = Stack::start(state, port, &[]).await;
    assert_eq!([admin, ben].map(|email| stack.password(email)), [None, None], "a password is shown once");
    assert_eq!(stack.send("GET", &path, Some(&ben_token), &Value::Null).await.0, 200, "the token still counts");
    let again = token(&stack, ben, &ben_password).await;
    assert_eq!(stack.send("GET", &path, Some(&again), &Value::Null).await.0, 200);
    assert_eq!(stack.send("POST", "/runs", Some(&again), &plan).await.0, 403, "the role stays");
}
