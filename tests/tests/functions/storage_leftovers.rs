//! Objects that no artifact names: what attempts stored that were cancelled, failed or lost, and what is uploaded after a deletion.

use std::sync::{Arc, Mutex};

use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::json;
use shared::domain::ArtifactId;
use shared::domain::artifact_storage::Seen;
use shared::domain::outcome::Outcome;
use shared::flow::clear_leftovers::clear_leftovers;
use shared::storage::ArtifactMeta;
use tokio::sync::Notify;

use crate::gateway::{Gateway, Shape};
use crate::storage::{delete, hurry, state, sweep};
use crate::uploads::{announce, send};

fn meta() -> ArtifactMeta {
    ArtifactMeta { kind: "text", media_type: "text/plain", ..ArtifactMeta::default() }
}

fn plan() -> serde_json::Value {
    let mut step = plans::step("s", "codegen", json!({}));
    step["retry"] = json!({"max_attempts": 2, "backoff_ms": 1});
    json!({"goal": "g", "steps": [step]})
}

/// Clears the folders of all attempts that are remembered, as hours later.
async fn clear(lab: &Lab) -> u64 {
    lab.admin.execute("update nofx.attempt_leftover set due_at = now() - interval '1 s'", &[]).await.unwrap();
    let deleted = clear_leftovers(&lab.worker_ctx().await).await.expect("cleared");
    let left: i64 = lab.admin.query_one("select count(*) from nofx.attempt_leftover", &[]).await.unwrap().get(0);
    assert_eq!(left, 0, "it is forgotten");
    deleted
}

#[tokio::test]
async fn what_a_cancelled_attempt_stored_is_deleted() {
    let lab = Lab::with_bucket().await;
    let (stored, cancelled) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let uri = Arc::new(Mutex::new(String::new()));
    let script = {
        let (stored, cancelled, uri) = (Arc::clone(&stored), Arc::clone(&cancelled), Arc::clone(&uri));
        Script::new(move |_, store| {
            let (stored, cancelled, uri) = (Arc::clone(&stored), Arc::clone(&cancelled), Arc::clone(&uri));
            async move {
                let artifact = store.put("a.txt", meta(), b"late".to_vec()).await.expect("stored");
                uri.lock().unwrap().clone_from(&artifact.uri);
                stored.notify_one();
                cancelled.notified().await;
                Outcome { artifacts: vec![artifact], ..Outcome::succeeded(serde_json::Map::new()) }
            }
        })
    };
    let run = lab.submit(&plan()).await;
    let cancel = async {
        stored.notified().await;
        let answer = Gateway::api(&lab, Shape::Http).post(&format!("/runs/{run}/cancel"), &json!({})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        cancelled.notify_one();
    };
    tokio::join!(lab.settle(&script, Deliver::Once), cancel);
    let uri = uri.lock().unwrap().clone();
    let rows: i64 = lab.admin.query_one("select count(*) from nofx.artifact", &[]).await.unwrap().get(0);
    assert_eq!((rows, lab.ctx.storage.look(&uri).await.unwrap()), (0, Seen::Warm), "the test proves nothing");
    assert_eq!(clear_leftovers(&lab.worker_ctx().await).await.unwrap(), 0, "its worker may still write");
    assert_eq!(clear(&lab).await, 1);
    assert_eq!(lab.ctx.storage.look(&uri).await.unwrap(), Seen::Missing);
}

#[tokio::test]
async fn what_an_artifact_names_stays_whatever_became_of_its_attempt() {
    let lab = Lab::with_bucket().await;
    let forgotten = Arc::new(Mutex::new(Vec::new()));
    let script = {
        let forgotten = Arc::clone(&forgotten);
        Script::new(move |step, store| {
            let forgotten = Arc::clone(&forgotten);
            async move {
                let kept = store.put("kept.txt", meta(), b"kept".to_vec()).await.expect("stored");
                let lost = store.put("lost.txt", meta(), b"lost".to_vec()).await.expect("stored");
                forgotten.lock().unwrap().push(lost.uri);
                let end = if step.attempt == 1 {
                    nofx_tests::script::flaky()
                } else {
                    Outcome::succeeded(serde_json::Map::new())
                };
                Outcome { artifacts: vec![kept], ..end }
            }
        })
    };
    let run = lab.submit(&plan()).await;
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    // Only the first attempt failed. The second one is not looked at, and lies in its folder.
    assert_eq!(clear(&lab).await, 1);
    let forgotten = forgotten.lock().unwrap().clone();
    assert_eq!(lab.ctx.storage.look(&forgotten[0]).await.unwrap(), Seen::Missing);
    assert_eq!(lab.ctx.storage.look(&forgotten[1]).await.unwrap(), Seen::Warm);
    let rows = lab.admin.query("select uri from nofx.artifact", &[]).await.unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(lab.ctx.storage.look(row.get(0)).await.unwrap(), Seen::Warm);
    }
}

#[tokio::test]
async fn an_upload_is_deleted_only_when_its_signed_url_stores_nothing_any_more() {
    let lab = Lab::with_bucket().await;
    let bytes = b"a secret".to_vec();
    let upload = announce(&lab, &bytes).await;
    let id: ArtifactId = upload["id"].as_str().unwrap().parse().unwrap();
    let uri = upload["uri"].as_str().unwrap();
    assert!(send(&upload, bytes.clone()).await);
    assert_eq!(delete(&lab, id, "a secret").await.status, 202);
    hurry(&lab).await;
    assert_eq!(sweep(&lab).await.deleted, 0);
    assert_eq!(lab.ctx.storage.look(uri).await.unwrap(), Seen::Missing, "the bytes go at once");
    assert_eq!(state(&lab, id).await, "deleting");
    assert!(send(&upload, bytes).await, "the URL is still valid");
    lab.admin.execute("update nofx.artifact set created_at = created_at - interval '1 hour'", &[]).await.unwrap();
    hurry(&lab).await;
    assert_eq!(sweep(&lab).await.deleted, 1);
    assert_eq!(lab.ctx.storage.look(uri).await.unwrap(), Seen::Missing);
    assert_eq!(state(&lab, id).await, "deleted");
}
