//! The command line as a program, with the functions of the test.

use std::fs;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use nofx_tests::command::Nofx;
use nofx_tests::gallery::site::functions;
use nofx_tests::lab::{s3, sdk};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::evidence_pages::asking;

/// The command, with the functions for as long as the test runs.
pub async fn serve(lab: &Lab) -> Nofx {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = functions(&lab.ctx);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Nofx::at(&url)
}

/// The same behind a gateway that loses the answers to the first two submissions of a plan.
async fn serve_losing_answers(lab: &Lab) -> Nofx {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let lost = Arc::new(AtomicUsize::new(0));
    let gateway = middleware::from_fn(move |request: Request, next: Next| {
        let lost = Arc::clone(&lost);
        async move {
            let is_submission = request.method() == Method::POST && request.uri().path() == "/runs";
            let answer = next.run(request).await;
            if is_submission && lost.fetch_add(1, Ordering::Relaxed) < 2 {
                return StatusCode::GATEWAY_TIMEOUT.into_response();
            }
            answer
        }
    });
    let router = functions(&lab.ctx).layer(gateway);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Nofx::at(&url)
}

#[tokio::test]
async fn a_plan_whose_answer_was_lost_is_sent_again_and_starts_one_run() {
    let lab = Lab::new().await;
    let nofx = serve_losing_answers(&lab).await;
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.json");
    fs::write(&plan, json!({"plan": plans::chain(1)}).to_string()).unwrap();
    let started = nofx.output(&["run", plan.to_str().unwrap(), "--as", "ann"]).await;
    let (printed, beside) = texts(&started);
    assert!(started.status.success(), "{beside}");
    let runs = lab.admin.query("select id from nofx.run", &[]).await.unwrap();
    assert_eq!(runs.len(), 1, "{beside}");
    assert_eq!(printed.trim(), runs[0].get::<_, Uuid>(0).to_string());
    // Another call starts another run.
    assert!(nofx.output(&["run", plan.to_str().unwrap()]).await.status.success());
    assert_eq!(lab.admin.query("select id from nofx.run", &[]).await.unwrap().len(), 2);
}

/// What a call prints, and what it says beside that.
pub fn texts(output: &Output) -> (String, String) {
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

/// The gate of a run whose step asks whether a change may weaken its checks.
async fn asked(lab: &Lab) -> String {
    let run = lab.submit(&json!({"goal": "g", "steps": [plans::step("unit", "gate:unit", json!({}))]})).await;
    lab.settle(&asking(), Deliver::Once).await;
    let gate = lab.admin.query_one("select id from nofx.gate where run_id = $1", &[&run.0]).await.unwrap();
    gate.get::<_, Uuid>(0).to_string()
}

/// The lines that `asking` weakens.
const DIFFERENCE: &str = "a.test.ts: gone\n    -it <b>\n";

#[tokio::test]
async fn a_decision_about_weakened_checks_shows_them_first_also_with_json() {
    let lab = Lab::with_bucket().await;
    let nofx = serve(&lab).await;

    let gate = asked(&lab).await;
    let decided = nofx.output(&["approve", &gate, "--json", "--reason", "it was wrong"]).await;
    let (printed, beside) = texts(&decided);
    assert!(decided.status.success(), "{beside}");
    let document: Value = serde_json::from_str(&printed).expect("one document and nothing else");
    assert_eq!((&document["status"], &document["decision"]["actor"]), (&json!("passed"), &json!("ann")));
    assert_eq!(beside, DIFFERENCE, "the difference is beside the document");

    let gate = asked(&lab).await;
    let (printed, _) = texts(&nofx.output(&["approve", &gate]).await);
    assert!(printed.starts_with(DIFFERENCE) && printed.contains("passed  manual:gate-change"), "{printed}");
}

#[tokio::test]
async fn nobody_lets_weakened_checks_pass_that_cannot_be_shown() {
    let lab = Lab::with_bucket().await;
    let nofx = serve(&lab).await;
    let gate = asked(&lab).await;
    // The document was replaced after it was recorded.
    let sql = "select uri from nofx.artifact where type = 'gate_attachment'";
    let uri: String = lab.admin.query_one(sql, &[]).await.unwrap().get(0);
    let bucket = &lab.ctx.config.artifacts.bucket;
    let key = uri.strip_prefix(&format!("s3://{bucket}/")).expect("in the bucket");
    let other = br#"{"weakenings": []}"#.to_vec();
    s3(&sdk().await).put_object().bucket(bucket).key(key).body(other.into()).send().await.expect("replaced");

    for verb in ["approve", "waive"] {
        for json in [None, Some("--json")] {
            let arguments = [Some(verb), Some(&gate), Some("--reason"), Some("r"), json];
            let decided = nofx.output(&arguments.into_iter().flatten().collect::<Vec<_>>()).await;
            let (printed, why) = texts(&decided);
            assert_eq!((decided.status.code(), printed.as_str()), (Some(1), ""), "{verb} {json:?}: {why}");
            assert!(why.contains("nothing was decided") && why.contains("was changed"), "{verb} {json:?}: {why}");
        }
    }
    let gates = nofx.json(&["inbox", "--json"]).await;
    assert_eq!(gates[0]["id"], json!(gate), "it still waits");
    let document = nofx.json(&["reject", &gate, "--json", "--reason", "it cannot be read"]).await;
    assert_eq!(document["status"], json!("failed"), "a rejection lets nothing pass");
}

#[tokio::test]
async fn what_a_command_does_is_a_document_with_json() {
    let lab = Lab::with_bucket().await;
    let nofx = serve(&lab).await;
    let write = plans::step("write", "codegen", json!({"instruction": "write"}));
    let run = lab.submit(&json!({"goal": "g", "steps": [write]})).await.to_string();
    lab.settle(&Script::deployed(), Deliver::Once).await;

    let got = nofx.json(&["get", "code.txt", "--run", "last", "--json"]).await;
    assert_eq!((&got["file"], &got["name"], &got["type"]), (&json!("code.txt"), &json!("code.txt"), &json!("text")));
    assert_eq!((&got["run_id"], &got["media_type"]), (&json!(run), &json!("text/plain")));
    let bytes = fs::read(nofx.folder().join("code.txt")).expect("the file is written");
    assert_eq!(got["size_bytes"], json!(bytes.len()));
    let id = got["id"].as_str().unwrap();
    let got = nofx.json(&["get", id, "--json", "--output", "other.txt"]).await;
    assert_eq!(got["file"], json!("other.txt"));
    assert_eq!(fs::read(nofx.folder().join("other.txt")).unwrap(), bytes);
    let both = nofx.output(&["get", id, "--json", "--output", "-"]).await;
    assert_eq!((both.status.code(), both.stdout), (Some(1), Vec::new()), "one output cannot have both");

    let opened = nofx.json(&["open", "last", "--json"]).await;
    assert!(opened["url"].as_str().unwrap().ends_with(&format!("/ui/runs/{run}")), "{opened}");
    assert_eq!(opened["opened"], json!(false), "there is no screen");
}

#[tokio::test]
async fn a_graph_is_the_plan_that_the_api_checked() {
    let lab = Lab::new().await;
    let nofx = serve(&lab).await;
    let file = nofx.plan(&plans::approval(60));
    let graph = nofx.json(&["plan", "graph", file, "--json"]).await;
    assert_eq!(graph["steps"][1]["depends_on"], json!(["build"]), "{graph}");
    assert_eq!(graph, nofx.json(&["plan", "check", file, "--json"]).await);
    let both = nofx.output(&["plan", "graph", file, "--json", "--format", "dot"]).await;
    assert_eq!(both.status.code(), Some(2));
}

#[tokio::test]
async fn every_change_of_profiles_prints_them() {
    let nofx = Nofx::at("http://127.0.0.1:1");
    let added = nofx.json(&["profile", "add", "one", "https://one.example.com", "--json"]).await;
    assert_eq!(added["profiles"]["one"]["api_url"], json!("https://one.example.com"));
    nofx.json(&["profile", "add", "two", "https://two.example.com", "--json"]).await;
    assert_eq!(nofx.json(&["profile", "use", "two", "--json"]).await["default"], json!("two"));
    let left = nofx.json(&["profile", "remove", "two", "--json"]).await;
    assert_eq!(left, nofx.json(&["profile", "list", "--json"]).await);
    assert_eq!(left["profiles"].as_object().unwrap().keys().collect::<Vec<_>>(), ["one"]);
}
