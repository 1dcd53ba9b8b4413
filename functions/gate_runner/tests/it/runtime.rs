//! The program under a Runtime API, as Lambda starts it. Any other environment is not Lambda.

use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{get, post};
use nofx_gates::run::Bundle;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command as AsyncCommand;
use tokio::sync::oneshot;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gate_runner");

/// Takes the kind of the answer and its body.
type Sender = oneshot::Sender<(String, Bytes)>;

/// A Runtime API with one invocation.
#[derive(Clone)]
struct Runtime {
    event: Arc<Mutex<Option<Bytes>>>,
    answer: Arc<Mutex<Option<Sender>>>,
}

async fn next(State(runtime): State<Runtime>) -> Response {
    let event = runtime.event.lock().unwrap().take();
    let Some(event) = event else { return std::future::pending().await };
    let headers = AppendHeaders([
        ("lambda-runtime-aws-request-id", "one"),
        ("lambda-runtime-deadline-ms", "99999999999999"),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:gate_runner"),
    ]);
    (headers, event).into_response()
}

async fn answer(State(runtime): State<Runtime>, Path((_, kind)): Path<(String, String)>, body: Bytes) -> StatusCode {
    if let Some(answer) = runtime.answer.lock().unwrap().take() {
        let _ = answer.send((kind, body));
    }
    StatusCode::ACCEPTED
}

/// Serves one invocation. Returns the address and the answer.
async fn serve(event: &Value) -> (String, oneshot::Receiver<(String, Bytes)>) {
    let (sender, receiver) = oneshot::channel();
    let runtime = Runtime {
        event: Arc::new(Mutex::new(Some(event.to_string().into()))),
        answer: Arc::new(Mutex::new(Some(sender))),
    };
    let router = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/{kind}", post(answer))
        .with_state(runtime);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, receiver)
}

/// A request whose archive does not exist: the answer is a bundle that says so.
fn request(folder: &std::path::Path) -> Value {
    let command = json!({
        "argv": ["true"], "directory": "", "environment": {}, "companions": [], "reports": [], "network": false,
        "minimum_sandbox": "limits", "timeout_ms": 1000
    });
    let job = json!({
        "tenant": "local", "command": command, "ecosystem": null, "audit": false,
        "variants": [{ "name": "", "edits": {} }], "timeout_ms": 1000
    });
    json!({
        "archive": { "file": folder.join("none.tar.gz") }, "archive_sha256": "0".repeat(64),
        "bundle": { "file": folder.join("bundle.tar.gz") }, "job": job
    })
}

#[tokio::test]
async fn started_as_a_wrapper_of_a_managed_runtime_it_serves_and_ignores_the_runtimes_command() {
    // What Lambda passes to AWS_LAMBDA_EXEC_WRAPPER on nodejs22.x, and what it passes to `bootstrap` of a provided runtime.
    let node: &[&str] =
        &["/var/lang/bin/node", "--expose-gc", "--max-http-header-size", "81920", "/var/runtime/index.mjs"];
    for arguments in [node, &[], &["bootstrap"], &["runs"]] {
        let folder = tempfile::tempdir().unwrap();
        let (address, answer) = serve(&request(folder.path())).await;
        let mut process = AsyncCommand::new(PROGRAM)
            .args(arguments)
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", address)
            .env("AWS_LAMBDA_FUNCTION_NAME", "gate_runner")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "s")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "g")
            .env("GATE_RUNNER_WORK_DIR", folder.path())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (kind, body) = tokio::select! {
            answer = answer => answer.unwrap(),
            ended = process.wait() => panic!("{arguments:?}: it ended with {ended:?}"),
        };
        assert_eq!(kind, "response", "{arguments:?}: {}", String::from_utf8_lossy(&body));
        let bundle = Bundle::unpack(&std::fs::read(folder.path().join("bundle.tar.gz")).unwrap()).unwrap();
        assert_eq!(bundle.result.stopped.unwrap().code, "archive_unavailable");
    }
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().stdin(Stdio::null()).output().unwrap()
}

#[test]
fn outside_lambda_an_unknown_argument_is_refused() {
    let output = run(&["/var/lang/bin/node"]);
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && printed.contains("use `gate_runner run`"), "{printed}");
    let output = run(&["run"]);
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && printed.contains("not a RunSpec"), "{printed}");
}
