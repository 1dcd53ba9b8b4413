//! Uploads of workspaces: only the declared bytes are ever read.

use std::path::Path;

use ::workspace::Workspaces;
use nofx_gates::Limits;
use nofx_gates::archive;
use nofx_gates::snapshot::Snapshot;
use nofx_tests::lab::{s3, sdk};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::domain::digest::sha256_hex;
use shared::worker::Handler;

use crate::gateway::{Gateway, Shape};

/// An archive with one file.
fn packed(content: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), content).unwrap();
    let snapshot = Snapshot::take(folder.path()).unwrap();
    archive::pack(&archive::sources(&snapshot), Limits::default()).unwrap()
}

/// Announces an upload of these bytes.
pub async fn announce(lab: &Lab, bytes: &[u8]) -> Value {
    let body = json!({"sha256": sha256_hex(bytes), "size_bytes": bytes.len()});
    let answer = Gateway::api(lab, Shape::Http).post("/workspaces", &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.body
}

/// Sends bytes with the signed request. Says whether the storage took them.
pub async fn send(upload: &Value, bytes: Vec<u8>) -> bool {
    let mut request = reqwest::Client::new().put(upload["upload_url"].as_str().unwrap()).body(bytes);
    for (name, value) in upload["headers"].as_object().unwrap() {
        // HTTP sets the length of the body. A client that lies about it sends another request.
        if name != "content-length" {
            request = request.header(name, value.as_str().unwrap());
        }
    }
    request.send().await.unwrap().status().is_success()
}

/// What a step that reads the workspace ends with: its error's code, or none.
async fn read(lab: &Lab, id: &Value, work: &Path) -> Option<String> {
    let workspaces = std::sync::Arc::new(Workspaces::new(work.to_path_buf(), String::new()));
    let script = Script::new(move |step, store| {
        let workspaces = std::sync::Arc::clone(&workspaces);
        async move { workspaces.handle(&step, &store).await }
    });
    let step = plans::step("write", "workspace:write", json!({"files": {"b": "x"}}));
    let run = lab.submit(&json!({"goal": "g", "workspace": {"archive": id}, "steps": [step]})).await;
    lab.settle(&script, Deliver::Once).await;
    lab.snapshot(run).await["steps"]["write"]["error"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn only_the_declared_bytes_are_read() {
    let (lab, work) = (Lab::with_bucket().await, tempfile::tempdir().unwrap());
    let (good, other) = (packed("a good file"), packed("no good file"));
    assert_eq!(good.len(), other.len(), "the size alone must not decide");
    let upload = announce(&lab, &good).await;
    let read = async || read(&lab, &upload["id"], work.path()).await;
    assert_eq!(read().await.as_deref(), Some("archive_unusable"), "nothing is uploaded");

    // Whether the storage refuses other bytes, or a reader does, they are never a workspace.
    let larger = [good.as_slice(), &[0; 1000]].concat();
    for bytes in [other.clone(), larger, good[..good.len() - 1].to_vec(), Vec::new()] {
        let taken = send(&upload, bytes).await;
        assert_eq!(read().await.as_deref(), Some("archive_unusable"), "taken: {taken}");
    }
    assert!(send(&upload, good.clone()).await);
    assert_eq!(read().await, None);

    // A second upload with the same request.
    let taken = send(&upload, other).await;
    let expected = taken.then_some("archive_unusable");
    assert_eq!(read().await.as_deref(), expected, "taken: {taken}");
    assert!(send(&upload, good).await, "the same bytes again");
    assert_eq!(read().await, None);
}

#[tokio::test]
async fn an_object_that_changed_after_its_upload_is_not_used() {
    let (lab, work) = (Lab::with_bucket().await, tempfile::tempdir().unwrap());
    let (good, other) = (packed("a good file"), packed("no good file"));
    let upload = announce(&lab, &good).await;
    assert!(send(&upload, good).await);
    assert_eq!(read(&lab, &upload["id"], work.path()).await, None);
    // Somebody with access to the bucket, or a lost signature.
    let key = upload["uri"].as_str().unwrap().split('/').skip(3).collect::<Vec<_>>().join("/");
    let put = s3(&sdk().await).put_object().bucket(&lab.ctx.config.artifacts.bucket).key(key).body(other.into());
    put.send().await.unwrap();
    assert_eq!(read(&lab, &upload["id"], work.path()).await.as_deref(), Some("archive_unusable"));
    lab.assert_invariants().await;
}
