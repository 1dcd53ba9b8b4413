//! The console's form of a new run, on a real database.

use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::domain::{ArtifactId, ArtifactRef};

use crate::gateway::{Answer, Gateway, SHAPES, Shape};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const COOKIE: (&str, &str) = ("cookie", "nofx-csrf=0123456789abcdef0123456789abcdef");
const PLAN: &str =
    "plan:\r\n  goal: typed\r\n  steps:\r\n    - {name: a, tool: echo}\r\n    - {name: b, tool: echo}\r\n";
const KEY: &str = "6e0d3c8e-2a8c-4f63-9d9e-0a6c5a2b7f10";

/// A file of a form: field, name, bytes.
type File<'a> = (&'a str, &'a str, &'a [u8]);

async fn send(console: &Gateway, path: &str, fields: &[(&str, &str)], files: &[File<'_>]) -> Answer {
    let mut body = Vec::new();
    for (name, value) in fields.iter().chain([&("csrf", TOKEN)]) {
        let head = format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(head.into_bytes());
    }
    for (field, name, bytes) in files {
        let head = format!("--XX\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\r\n");
        body.extend(head.into_bytes());
        body.extend_from_slice(bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--XX--\r\n");
    let headers = [("content-type", "multipart/form-data; boundary=XX"), ("sec-fetch-site", "same-origin"), COOKIE];
    console.post_bytes(path, &headers, &body).await
}

fn html(answer: &Answer) -> &str {
    answer.body.as_str().expect("a page")
}

async fn count(lab: &Lab, table: &str) -> i64 {
    lab.admin.query_one(&format!("select count(*) from nofx.{table}"), &[]).await.expect("a count").get(0)
}

#[tokio::test]
async fn a_plan_is_checked_and_then_starts_one_run_however_often_it_is_sent() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let console = Gateway::console(&lab, shape);
        let fields = [("plan", PLAN), ("actor", " ada "), ("key", KEY)];
        let checked = send(&console, "/ui/new/check", &fields, &[]).await;
        assert_eq!(checked.status, 200, "{checked:?}");
        for words in ["The plan is valid.", "2 steps in 2 levels", "at once", "up to 3", KEY] {
            assert!(html(&checked).contains(words), "{words}: {}", html(&checked));
        }
        assert_eq!(count(&lab, "run").await, 0, "a check starts nothing");

        let started = send(&console, "/ui/new", &fields, &[]).await;
        assert_eq!(started.status, 303, "{started:?}");
        let location = started.header("location").expect("a run").to_owned();
        let again = send(&console, "/ui/new", &fields, &[]).await;
        assert_eq!((again.status, again.header("location")), (303, Some(location.as_str())));
        assert_eq!(count(&lab, "run").await, 1, "a double click starts one run");
        let other = send(&console, "/ui/new", &[("plan", PLAN), ("actor", "bob"), ("key", KEY)], &[]).await;
        assert_eq!(other.status, 409, "bob did not start the run of ada: {other:?}");

        let run = location.strip_prefix("runs/").expect("a relative address").parse().expect("an id");
        let created: Value = lab
            .admin
            .query_one("select payload from nofx.event where type = 'run.created'", &[])
            .await
            .expect("an event")
            .get(0);
        assert_eq!((&created["actor"], &created["goal"]), (&json!("ada"), &json!("typed")));
        lab.settle(&Script::deployed(), Deliver::Once).await;
        assert_eq!(lab.run_status(run).await, "succeeded");
        lab.assert_invariants().await;
    }
}

#[tokio::test]
async fn the_same_form_with_another_plan_is_a_conflict_and_the_next_send_starts_it() {
    let lab = Lab::new().await;
    let console = Gateway::console(&lab, Shape::Http);
    let started = send(&console, "/ui/new", &[("plan", PLAN), ("actor", "ada"), ("key", KEY)], &[]).await;
    assert_eq!(started.status, 303);
    let other = PLAN.replace("typed", "changed");
    let conflict = send(&console, "/ui/new", &[("plan", &other), ("actor", "ada"), ("key", KEY)], &[]).await;
    assert_eq!(conflict.status, 409);
    assert!(html(&conflict).contains("Send the form again") && html(&conflict).contains("goal: changed"));
    let key = html(&conflict).split("name=\"key\" value=\"").nth(1).expect("a key")[..36].to_owned();
    assert_ne!(key, KEY);
    let second = send(&console, "/ui/new", &[("plan", &other), ("actor", "ada"), ("key", &key)], &[]).await;
    assert_eq!((second.status, count(&lab, "run").await), (303, 2));
}

#[tokio::test]
async fn an_archive_is_stored_once_and_becomes_the_workspace_of_the_run() {
    for shape in SHAPES {
        let lab = Lab::with_bucket().await;
        let console = Gateway::console(&lab, shape);
        let archive: Vec<u8> = [0x1f, 0x8b].into_iter().chain((0..=255).cycle().take(4_000)).collect();
        let broken = PLAN.replace("echo}", "ecko}");
        let files = [("workspace_file", "shop.tar.gz", archive.as_slice()), ("base_file", "", &[])];
        let refused = send(&console, "/ui/new", &[("plan", &broken), ("actor", "ada")], &files).await;
        assert_eq!(refused.status, 400);
        let page = html(&refused);
        assert!(page.contains("shop.tar.gz</bdi> is stored") && page.contains("2 problems"), "{page}");
        let id = page.split("name=\"workspace\" value=\"").nth(1).expect("a stored archive")[..36].to_owned();

        let started = send(&console, "/ui/new", &[("plan", PLAN), ("actor", "ada"), ("workspace", &id)], &[]).await;
        assert_eq!(started.status, 303, "{started:?}");
        let sql = "select plan, workspace from nofx.run";
        let row = lab.admin.query_one(sql, &[]).await.expect("a run");
        let (plan, workspace): (Value, Value) = (row.get(0), row.get(1));
        assert_eq!(plan["workspace"], json!({ "archive": id }));
        let artifact: ArtifactRef = serde_json::from_value(workspace["archive"].clone()).expect("an artifact");
        assert_eq!(artifact.id, ArtifactId(id.parse().expect("an id")));
        assert_eq!(lab.ctx.storage.get(&artifact, 1 << 20).await.expect("the object"), archive);
        assert_eq!(count(&lab, "artifact").await, 1);

        let other = send(&console, "/ui/new", &[("plan", PLAN), ("actor", "ada")], &[("base_file", "a.zip", b"PK")]);
        let other = other.await;
        assert_eq!(other.status, 400);
        assert!(html(&other).contains("is not a tar.gz") && html(&other).contains("goal: typed"));
    }
}

#[tokio::test]
async fn archives_and_plans_of_another_tenant_are_not_found() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(2)).await;
    let console = Gateway::console(&lab, Shape::Http);
    let again = console.get(&format!("/ui/new?from={run}")).await;
    assert!(html(&again).contains("&quot;goal&quot;") && html(&again).contains("&quot;s1&quot;"), "{}", html(&again));
    lab.admin.execute("update nofx.run set tenant_id = 'other'", &[]).await.unwrap();
    assert_eq!(console.get(&format!("/ui/new?from={run}")).await.status, 404);

    let artifact = uuid::Uuid::new_v4();
    let sql = "insert into nofx.artifact (id, tenant_id, name, type, uri, hash, size_bytes, media_type)
               values ($1, 'other', 'w', 'workspace', 's3://b/k', repeat('0', 64), 1, 'application/gzip')";
    lab.admin.execute(sql, &[&artifact]).await.unwrap();
    let fields = [("plan", PLAN), ("actor", "ada"), ("workspace", &artifact.to_string())];
    for path in ["/ui/new/check", "/ui/new"] {
        let refused = send(&console, path, &fields, &[]).await;
        assert_eq!(refused.status, 400, "{path}");
        assert!(html(&refused).contains("no artifact has the id"), "{}", html(&refused));
    }
}
