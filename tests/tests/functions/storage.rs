//! Artifacts that are archived, restored and deleted: by a policy and by people, over the emulator's S3.

use nofx_tests::lab::{s3, sdk};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::db::artifact_storage::{self, artifacts_take};
use shared::domain::artifact_storage::{Act, Seen, StorageState};
use shared::domain::outcome::Outcome;
use shared::domain::{ArtifactId, RunId};
use shared::flow::keep_artifacts::{Kept, keep_artifacts};
use shared::storage::ArtifactMeta;

use crate::gateway::{Answer, Gateway, SHAPES, Shape};

const BYTES: usize = 200_000;

/// A lab with a bucket, and a run that made a large and a small artifact. It is sealed.
pub async fn lab_with_run() -> (Lab, RunId, Vec<ArtifactId>) {
    let lab = Lab::with_bucket().await;
    let run = run(&lab).await;
    let rows = lab
        .admin
        .query("select id from nofx.artifact where run_id = $1 order by size_bytes desc", &[&run.0])
        .await
        .unwrap();
    (lab, run, rows.iter().map(|row| ArtifactId(row.get(0))).collect())
}

/// A run whose only step stores `large.bin` and `small.txt`.
async fn run(lab: &Lab) -> RunId {
    let script = Script::new(|_, store| async move {
        let meta = || ArtifactMeta { kind: "text", media_type: "text/plain", ..ArtifactMeta::default() };
        let large = store.put("large.bin", meta(), vec![b'x'; BYTES]).await.expect("stored");
        let made_from = vec![large.id];
        let small = store.put("small.txt", ArtifactMeta { made_from, ..meta() }, b"small".to_vec()).await;
        Outcome { artifacts: vec![large, small.expect("stored")], ..Outcome::succeeded(serde_json::Map::new()) }
    });
    let run = lab.submit(&plans::chain(1)).await;
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    seal(lab, run).await;
    run
}

async fn seal(lab: &Lab, run: RunId) {
    let sql = "update nofx.run set sealed_generation = generation where id = $1";
    assert_eq!(lab.admin.execute(sql, &[&run.0]).await.unwrap(), 1);
}

/// Makes everything that the tenant has this many days older.
pub async fn age(lab: &Lab, days: i32) {
    let sql = "update nofx.artifact set created_at = created_at - make_interval(days => $1)";
    lab.admin.execute(sql, &[&days]).await.unwrap();
    lab.admin.execute("update nofx.artifact_pass set next_at = now() - interval '1 s'", &[]).await.unwrap();
}

/// Everything that waits for its time is due.
pub async fn hurry(lab: &Lab) {
    let sql = "update nofx.artifact_storage set due_at = now() - interval '1 s' where due_at is not null";
    lab.admin.execute(sql, &[]).await.unwrap();
}

pub async fn sweep(lab: &Lab) -> Kept {
    // As the sweeper: its login may call nothing but transitions.
    keep_artifacts(&lab.worker_ctx().await).await.expect("a sweep")
}

pub async fn set_policy(lab: &Lab, artifacts: Value) -> Answer {
    let body = json!({"document": {"artifacts": artifacts}, "actor": "ann", "reason": "money"});
    Gateway::api(lab, Shape::Http).send("PUT", "/policy", &[], Some(body.to_string())).await
}

pub async fn artifact(lab: &Lab, id: ArtifactId) -> Value {
    let answer = Gateway::api(lab, Shape::Http).get(&format!("/artifacts/{id}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

pub async fn state(lab: &Lab, id: ArtifactId) -> String {
    artifact(lab, id).await["storage"]["state"].as_str().expect("a state").to_owned()
}

pub async fn download(lab: &Lab, id: ArtifactId) -> Answer {
    Gateway::api(lab, Shape::Http).get(&format!("/artifacts/{id}/download")).await
}

pub async fn delete(lab: &Lab, id: ArtifactId, reason: &str) -> Answer {
    let body = json!({"reason": reason, "actor": "ann"}).to_string();
    Gateway::api(lab, Shape::Http).send("DELETE", &format!("/artifacts/{id}"), &[], Some(body)).await
}

pub async fn restore(lab: &Lab, id: ArtifactId, days: u32) -> Answer {
    let body = json!({"days": days, "tier": "expedited", "actor": "ann"});
    Gateway::api(lab, Shape::Http).post(&format!("/artifacts/{id}/restore"), &body).await
}

async fn uri(lab: &Lab, id: ArtifactId) -> String {
    lab.text("select uri from nofx.artifact where id = $1", id.0).await
}

/// Sweeps until the artifact is in this state, which the emulator's archive reaches by itself after 2 s.
async fn sweep_until(lab: &Lab, id: ArtifactId, wanted: &str) {
    let start = std::time::Instant::now();
    while state(lab, id).await != wanted {
        assert!(start.elapsed().as_secs() < 20, "it is {}", state(lab, id).await);
        hurry(lab).await;
        sweep(lab).await;
    }
}

#[tokio::test]
async fn a_policy_archives_what_is_old_and_large_and_a_restore_brings_it_back() {
    let (lab, _, artifacts) = lab_with_run().await;
    let (large, small) = (artifacts[0], artifacts[1]);
    assert_eq!(set_policy(&lab, json!({"hot_days": 30})).await.status, 200);
    assert_eq!(sweep(&lab).await, Kept::default(), "nothing is 30 days old");
    age(&lab, 31).await;
    let kept = sweep(&lab).await;
    assert_eq!(kept, Kept { wanted: 1, archived: 1, ..Kept::default() });
    assert_eq!((state(&lab, large).await, state(&lab, small).await), ("archived".into(), "hot".into()));
    let storage = artifact(&lab, large).await["storage"].clone();
    assert_eq!((&storage["actor"], &storage["reason"]), (&json!("policy"), &json!("version 1 of the policy")));
    assert_eq!(sweep(&lab).await, Kept::default(), "it is done");

    let refused = download(&lab, large).await;
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("artifact_archived")), "{refused:?}");
    assert!(refused.body["detail"].as_str().unwrap().contains(&format!("nofx artifact restore {large}")));
    assert_eq!(download(&lab, small).await.status, 302);

    let asked = restore(&lab, large, 3).await;
    assert_eq!((asked.status, &asked.body["storage"]["state"]), (202, &json!("restoring")), "{asked:?}");
    let restore_facts = &asked.body["storage"]["restore"];
    assert_eq!((&restore_facts["days"], &restore_facts["tier"]), (&json!(3), &json!("expedited")));
    assert!(restore_facts["expected_by"].as_str() > restore_facts["requested_at"].as_str(), "{restore_facts}");
    assert_eq!(restore(&lab, large, 3).await.status, 200, "it is asked already");
    assert_eq!(download(&lab, large).await.body["code"], "artifact_archived");
    sweep(&lab).await;
    assert_eq!(state(&lab, large).await, "restoring", "the archive takes its time");
    sweep_until(&lab, large, "restored").await;
    assert!(artifact(&lab, large).await["storage"]["restored_until"].is_string());
    let got = download(&lab, large).await;
    let bytes = reqwest::get(got.header("location").unwrap()).await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes.len(), BYTES);
    assert_eq!(restore(&lab, large, 2).await.status, 200, "it can be read for longer already");
    assert_eq!(restore(&lab, large, 9).await.status, 202);
    let until = artifact(&lab, large).await["storage"]["restored_until"].clone();
    sweep(&lab).await;
    let later = artifact(&lab, large).await["storage"]["restored_until"].clone();
    assert!(later.as_str() > until.as_str(), "{until} {later}");

    // The copy lapses: the storage says so, whatever the row says.
    let client = s3(&sdk().await);
    let key = uri(&lab, large).await.split_once(&format!("{}/", lab.ctx.config.artifacts.bucket)).unwrap().1.to_owned();
    let request = client.copy_object().bucket(&lab.ctx.config.artifacts.bucket).key(&key);
    let source = format!("{}/{key}", lab.ctx.config.artifacts.bucket);
    request.copy_source(source).storage_class("GLACIER".into()).send().await.expect("an archived object");
    hurry(&lab).await;
    sweep(&lab).await;
    assert_eq!(state(&lab, large).await, "archived");
}

#[tokio::test]
async fn a_policy_deletes_the_bytes_and_the_tombstone_stays_in_the_lineage() {
    let (lab, run, artifacts) = lab_with_run().await;
    let (large, small) = (artifacts[0], artifacts[1]);
    assert_eq!(set_policy(&lab, json!({"hot_days": 30, "keep_days": 365})).await.status, 200);
    age(&lab, 40).await;
    sweep(&lab).await;
    assert_eq!(state(&lab, large).await, "archived");
    age(&lab, 330).await;
    let kept = sweep(&lab).await;
    assert_eq!((kept.wanted, kept.deleted), (2, 0), "a run that names it now would be seen first");
    assert_eq!(state(&lab, large).await, "deleting");
    assert_eq!(download(&lab, large).await.status, 410);
    hurry(&lab).await;
    assert_eq!(sweep(&lab).await, Kept { deleted: 2, ..Kept::default() });
    for id in [large, small] {
        assert_eq!(state(&lab, id).await, "deleted");
        assert_eq!(lab.ctx.storage.look(&uri(&lab, id).await).await.unwrap(), Seen::Missing);
        let refused = download(&lab, id).await;
        assert_eq!((refused.status, &refused.body["code"]), (410, &json!("artifact_deleted")), "{refused:?}");
        assert_eq!(restore(&lab, id, 1).await.status, 410);
        let recorded = artifact(&lab, id).await;
        assert!(recorded["hash"].is_string() && recorded["size_bytes"].as_u64() > Some(0), "{recorded}");
    }
    for shape in SHAPES {
        let api = Gateway::api(&lab, shape);
        let base = shape.base_path();
        let lineage = api.get(&format!("{base}/runs/{run}/lineage")).await.body;
        assert_eq!(lineage["edges"].as_array().unwrap().len(), 1);
        for node in lineage["nodes"].as_array().unwrap() {
            assert_eq!((&node["storage"]["state"], &node["storage"]["actor"]), (&json!("deleted"), &json!("policy")));
        }
        for format in ["dot", "mermaid"] {
            let drawn = api.get(&format!("{base}/runs/{run}/lineage?format={format}")).await.body;
            assert_eq!(drawn.as_str().unwrap().matches("by policy").count(), 2, "{drawn}");
        }
    }
    let page = Gateway::console(&lab, Shape::Http).get(&format!("/ui/artifacts/{large}")).await.body.to_string();
    assert!(page.contains("The bytes were deleted") && !page.contains("menu-delete"), "{page}");
    let page = Gateway::console(&lab, Shape::Http).get(&format!("/ui/runs/{run}/lineage")).await.body.to_string();
    assert!(page.contains("by policy"), "{page}");

    // The audit says what the policy did.
    let entries = Gateway::api(&lab, Shape::Http).get("/audit").await.body["entries"].clone();
    let told: Vec<(&str, &Value)> = entries
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["subject"] == "artifacts")
        .map(|entry| (entry["action"].as_str().unwrap(), &entry["detail"]["artifacts"]))
        .collect();
    assert_eq!(told, [("artifacts.deleted", &json!(2)), ("artifacts.archived", &json!(1))]);
    // A tombstone cannot be changed, not even by the owner of the tables.
    for sql in ["update nofx.artifact_storage set reason = 'x'", "delete from nofx.artifact_storage"] {
        assert!(lab.admin.execute(sql, &[]).await.is_err(), "{sql}");
    }
    // It goes with its run.
    lab.admin.execute("delete from nofx.run where id = $1", &[&run.0]).await.unwrap();
    let left: i64 = lab.admin.query_one("select count(*) from nofx.artifact_storage", &[]).await.unwrap().get(0);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_person_deletes_what_no_open_run_uses() {
    let (lab, _, artifacts) = lab_with_run().await;
    let (large, small) = (artifacts[0], artifacts[1]);
    for (body, status) in [(json!({}), 400), (json!({"reason": " "}), 400), (json!({"reason": "a\u{202e}b"}), 400)] {
        let path = format!("/artifacts/{large}");
        let answer = Gateway::api(&lab, Shape::Http).send("DELETE", &path, &[], Some(body.to_string())).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert_eq!(delete(&lab, ArtifactId(uuid::Uuid::new_v4()), "x").await.status, 404);

    // A plan names it, in whatever way.
    let input =
        |text: String| json!({"goal": "g", "steps": [plans::step("s", "echo", json!({"deep": [{"artifact": text}]}))]});
    let mut earlier = Vec::new();
    for plan in [
        input(large.to_string()),
        input(large.to_string().to_uppercase()),
        input(large.0.simple().to_string()),
        json!({"goal": "g", "workspace": {"archive": large}, "steps": plans::chain(1)["steps"]}),
    ] {
        let open = lab.submit(&plan).await;
        earlier.push(open);
        let refused = delete(&lab, large, "a secret").await;
        assert_eq!((refused.status, &refused.body["code"]), (409, &json!("artifact_in_use")), "{refused:?}");
        assert!(refused.body["detail"].as_str().unwrap().contains(&open.to_string()), "{refused:?}");
        let cancelled = Gateway::api(&lab, Shape::Http).post(&format!("/runs/{open}/cancel"), &json!({})).await;
        assert_eq!(cancelled.status, 200);
    }
    let deleted = delete(&lab, large, "a secret").await;
    assert_eq!((deleted.status, &deleted.body["storage"]["state"]), (202, &json!("deleting")), "{deleted:?}");
    assert_eq!(delete(&lab, large, "again").await.status, 200);
    let plan = json!({"goal": "g", "workspace": {"archive": large}, "steps": plans::chain(1)["steps"]});
    for path in ["/runs", "/plans/check"] {
        let refused = Gateway::api(&lab, Shape::Http).post(path, &json!({ "plan": plan })).await;
        assert_eq!((refused.status, &refused.body["errors"][0]["path"]), (400, &json!("plan.workspace.archive")));
        assert!(refused.body["errors"][0]["message"].as_str().unwrap().contains("was deleted on"), "{refused:?}");
    }
    // A retry would need it, as a workspace or as an input.
    for earlier in earlier {
        let refused = Gateway::api(&lab, Shape::Http).post(&format!("/runs/{earlier}/retry"), &json!({})).await;
        assert_eq!((refused.status, &refused.body["code"]), (410, &json!("artifact_deleted")), "{refused:?}");
    }
    hurry(&lab).await;
    assert_eq!(sweep(&lab).await.deleted, 1);
    let storage = artifact(&lab, large).await["storage"].clone();
    assert_eq!((&storage["actor"], &storage["reason"]), (&json!("ann"), &json!("a secret")));
    let refused = download(&lab, large).await;
    assert!(refused.body["detail"].as_str().unwrap().ends_with("by ann: a secret"), "{refused:?}");
    assert_eq!(download(&lab, small).await.status, 302, "only that one");
    let entries = Gateway::api(&lab, Shape::Http).get("/audit?action=artifacts.deleted").await.body["entries"].clone();
    assert_eq!(entries.as_array().unwrap().len(), 1, "{entries}");
    assert_eq!((&entries[0]["actor"], &entries[0]["detail"]["reason"]), (&json!("ann"), &json!("a secret")));
}

#[tokio::test]
async fn what_an_open_run_uses_is_neither_archived_nor_deleted() {
    let (lab, run, artifacts) = lab_with_run().await;
    set_policy(&lab, json!({"hot_days": 1, "keep_days": 2})).await;
    age(&lab, 10).await;
    let open = lab
        .submit(&json!({"goal": "g", "workspace": {"archive": artifacts[0]}, "steps": plans::chain(1)["steps"]}))
        .await;
    // The small one is not used, and its run is not sealed.
    lab.admin.execute("update nofx.run set sealed_generation = 0 where id = $1", &[&run.0]).await.unwrap();
    assert_eq!(sweep(&lab).await, Kept::default());
    seal(&lab, run).await;
    age(&lab, 0).await;
    assert_eq!(sweep(&lab).await.wanted, 1);
    assert_eq!((state(&lab, artifacts[0]).await, state(&lab, artifacts[1]).await), ("hot".into(), "deleting".into()));

    // A run that names an artifact at the moment at which it is marked comes first: its deletion waits for the run's end.
    let sql = "update nofx.artifact_storage set artifact_id = $1 where artifact_id = $2";
    lab.admin.execute(sql, &[&artifacts[0].0, &artifacts[1].0]).await.unwrap();
    hurry(&lab).await;
    assert_eq!(sweep(&lab).await, Kept::default());
    assert_eq!(lab.ctx.storage.look(&uri(&lab, artifacts[0]).await).await.unwrap(), Seen::Warm);
    Gateway::api(&lab, Shape::Http).post(&format!("/runs/{open}/cancel"), &json!({})).await;
    hurry(&lab).await;
    assert_eq!(sweep(&lab).await.deleted, 1);
}

#[tokio::test]
async fn a_crash_between_the_storage_and_the_database_is_found_again() {
    let (lab, _, artifacts) = lab_with_run().await;
    let large = artifacts[0];
    set_policy(&lab, json!({"hot_days": 1})).await;
    age(&lab, 2).await;
    let ctx = lab.worker_ctx().await;
    // Marked, and then everything dies before the storage is asked.
    assert_eq!(artifact_storage::artifact_turns(&ctx.db, 9).await.unwrap(), std::slice::from_ref(&lab.tenant));
    let planned = artifact_storage::artifacts_plan(&ctx.db, &lab.tenant, 200, true).await.unwrap().expect("a turn");
    assert_eq!((planned.archived, planned.deleted), (1, 0));
    let taken = artifacts_take(&ctx.db, &lab.tenant, 10).await.unwrap();
    assert_eq!((taken.len(), taken[0].wanted().state), (1, StorageState::Archiving));
    assert!(artifacts_take(&ctx.db, &lab.tenant, 10).await.unwrap().is_empty(), "it is somebody's for two minutes");
    // The sweeper asks the storage, and dies before it tells the database.
    assert!(ctx.storage.tag(&taken[0].uri, "cold").await.unwrap());
    hurry(&lab).await;
    assert_eq!(sweep(&lab).await.archived, 1);

    // The same with a restore: the archive is asked twice.
    assert_eq!(restore(&lab, large, 1).await.status, 202);
    let taken = artifacts_take(&ctx.db, &lab.tenant, 10).await.unwrap();
    ctx.storage.restore(&taken[0].uri, 1, taken[0].tier.unwrap()).await.unwrap();
    hurry(&lab).await;
    sweep(&lab).await;
    ctx.storage.restore(&taken[0].uri, 1, taken[0].tier.unwrap()).await.expect("asked again is no error");
    sweep_until(&lab, large, "restored").await;

    // And with a deletion. What a sweep saw before somebody wanted it is not recorded.
    assert_eq!(restore(&lab, large, 300).await.status, 202);
    let stale = artifacts_take(&ctx.db, &lab.tenant, 10).await.unwrap();
    assert_eq!(delete(&lab, large, "x").await.status, 202);
    let until = shared::domain::artifact_storage::decide(&stale[0].wanted(), Seen::Warm, Some(Act::TagHot), 0);
    let shared::domain::artifact_storage::Decision::Settle(settled) = until else { panic!("{until:?}") };
    assert!(!artifact_storage::artifact_record(&ctx.db, &stale[0], &settled).await.unwrap(), "it is out of date");
    hurry(&lab).await;
    let taken = artifacts_take(&ctx.db, &lab.tenant, 10).await.unwrap();
    ctx.storage.delete(&taken[0].uri).await.unwrap();
    hurry(&lab).await;
    assert_eq!(sweep(&lab).await.deleted, 1);
    ctx.storage.delete(&taken[0].uri).await.expect("what is gone can be deleted again");
}

#[tokio::test]
async fn an_object_goes_with_the_last_artifact_that_has_it() {
    let (lab, _, artifacts) = lab_with_run().await;
    let (first, second) = (artifacts[0], artifacts[1]);
    let sql = "update nofx.artifact set uri = (select uri from nofx.artifact where id = $1) where id = $2";
    lab.admin.execute(sql, &[&first.0, &second.0]).await.unwrap();
    let object = uri(&lab, first).await;
    delete(&lab, first, "x").await;
    hurry(&lab).await;
    assert_eq!(sweep(&lab).await.deleted, 1);
    assert_eq!(state(&lab, first).await, "deleted");
    assert_eq!(lab.ctx.storage.look(&object).await.unwrap(), Seen::Warm, "the other one still has it");
    assert_eq!(download(&lab, second).await.status, 302);
    delete(&lab, second, "x").await;
    hurry(&lab).await;
    sweep(&lab).await;
    assert_eq!(lab.ctx.storage.look(&object).await.unwrap(), Seen::Missing);
}

#[tokio::test]
async fn every_version_of_an_object_is_deleted() {
    let (lab, _, artifacts) = lab_with_run().await;
    let bucket = &lab.ctx.config.artifacts.bucket;
    let client = s3(&sdk().await);
    let versioning = aws_sdk_s3::types::VersioningConfiguration::builder().status("Enabled".into()).build();
    client.put_bucket_versioning().bucket(bucket).versioning_configuration(versioning).send().await.unwrap();
    let object = uri(&lab, artifacts[0]).await;
    let key = object.strip_prefix(&format!("s3://{bucket}/")).unwrap();
    for body in [vec![1_u8], vec![2]] {
        client.put_object().bucket(bucket).key(key).body(body.into()).send().await.unwrap();
    }
    client.put_object().bucket(bucket).key(format!("{key}.other")).body(vec![3].into()).send().await.unwrap();
    client.delete_object().bucket(bucket).key(key).send().await.unwrap();
    delete(&lab, artifacts[0], "x").await;
    hurry(&lab).await;
    sweep(&lab).await;
    let left = client.list_object_versions().bucket(bucket).prefix(key).send().await.unwrap();
    let keys: Vec<_> = left.versions().iter().filter_map(|version| version.key()).collect();
    assert_eq!((keys, left.delete_markers().len()), (vec![format!("{key}.other").as_str()], 0));
}
