//! Who meets archived and deleted artifacts: steps, uploads, other tenants, pages, and policies that cannot be carried out.

use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::json;
use shared::db::artifact_storage;
use shared::domain::TenantId;
use shared::flow::keep_artifacts::Kept;

use crate::gateway::{Gateway, Shape};
use crate::storage::{age, artifact, delete, download, hurry, lab_with_run, restore, set_policy, state, sweep};
use crate::uploads::{announce, send};

#[tokio::test]
async fn a_step_that_reads_an_archived_or_deleted_artifact_says_so() {
    let (lab, _, artifacts) = lab_with_run().await;
    let large = artifacts[0];
    set_policy(&lab, json!({"hot_days": 1, "archive_min_bytes": 1})).await;
    let fails = async |wanted: &str| {
        let work = tempfile::tempdir().unwrap();
        let workspaces = std::sync::Arc::new(workspace::Workspaces::new(work.path().to_path_buf(), String::new()));
        let script = Script::new(move |step, store| {
            let workspaces = std::sync::Arc::clone(&workspaces);
            async move { shared::worker::Handler::handle(&*workspaces, &step, &store).await }
        });
        let files = json!({"files": [{"path": "a", "artifact": large}]});
        let run = lab.submit(&json!({"goal": "g", "steps": [plans::step("w", "workspace:write", files)]})).await;
        lab.settle(&script, Deliver::Once).await;
        assert_eq!(lab.snapshot(run).await["steps"]["w"]["error"], wanted);
    };
    age(&lab, 2).await;
    sweep(&lab).await;
    assert_eq!(state(&lab, large).await, "archived");
    fails("artifact_archived").await;
    // The row does not say it, the storage does.
    lab.admin.execute("update nofx.artifact_storage set state = 'archiving', due_at = now()", &[]).await.unwrap();
    fails("artifact_archived").await;
    // A run that was created before sees that it is gone.
    let sql = "update nofx.artifact_storage set state = 'deleted', due_at = null where artifact_id = $1";
    let early = lab
        .submit(&json!({"goal": "g", "steps": [
        plans::step("w", "workspace:write", json!({"files": [{"path": "a", "artifact": large}]}))]}))
        .await;
    lab.admin.execute(sql, &[&large.0]).await.unwrap();
    let script = Script::new(|_, _| async move { panic!("its inputs cannot be read") });
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(lab.snapshot(early).await["steps"]["w"]["error"], "artifact_deleted");
}

#[tokio::test]
async fn uploads_are_kept_as_long_and_their_bytes_count_until_they_are_deleted() {
    let lab = Lab::with_bucket().await;
    let bytes = vec![7_u8; 1_000];
    let upload = announce(&lab, &bytes).await;
    assert!(send(&upload, bytes).await);
    let announced = announce(&lab, b"never sent").await;
    let used = async || {
        let limits = Gateway::api(&lab, Shape::Http).get("/limits").await.body;
        limits["used"]["stored_bytes"].as_u64().unwrap_or_else(|| panic!("{limits}"))
    };
    set_policy(&lab, json!({"keep_days": 5})).await;
    age(&lab, 6).await;
    assert_eq!(used().await, 1_010, "they are counted once, and stored");
    assert_eq!(sweep(&lab).await.wanted, 2);
    hurry(&lab).await;
    assert_eq!(sweep(&lab).await.deleted, 2);
    for id in [&upload["id"], &announced["id"]] {
        assert_eq!(state(&lab, id.as_str().unwrap().parse().unwrap()).await, "deleted");
    }
    assert_eq!(used().await, 0);
}

#[tokio::test]
async fn a_policy_that_cannot_be_carried_out_or_read_does_nothing() {
    let (mut lab, _, artifacts) = lab_with_run().await;
    let refused = set_policy(&lab, json!({"hot_days": 5, "keep_days": 5})).await;
    assert_eq!((refused.status, &refused.body["errors"][0]["path"]), (400, &json!("document.artifacts.keep_days")));
    // Another S3 endpoint with keys of its own has no archive.
    lab.ctx.config.artifacts.keys = Some(("test".into(), "test".into()));
    let refused = set_policy(&lab, json!({"hot_days": 5})).await;
    assert_eq!((refused.status, &refused.body["errors"][0]["path"]), (400, &json!("document.artifacts.hot_days")));
    assert_eq!(set_policy(&lab, json!({"keep_days": 100})).await.status, 200);
    age(&lab, 50).await;
    // What a later release, or somebody with SQL, wrote.
    for (version, artifacts) in [
        (2, json!({"hot_days": 1})),
        (3, json!({"keep_days": 1, "hold": true})),
        (4, json!({"keep_days": "1"})),
        (5, json!({"keep_days": 1.5})),
        (6, json!({"keep_days": 1, "hot_days": 2})),
        (7, json!([1])),
        (8, json!({"keep_days": 0})),
    ] {
        let sql = "insert into nofx.policy (tenant_id, version, document, changed_by) values ($1, $2, $3, 'sql')";
        let document = json!({ "artifacts": artifacts });
        lab.admin.execute(sql, &[&lab.tenant.0, &version, &document]).await.unwrap();
        assert_eq!(sweep(&lab).await, Kept::default(), "{artifacts}");
    }
    assert_eq!(state(&lab, artifacts[0]).await, "hot");
}

#[tokio::test]
async fn every_tenant_has_its_turn_and_many_artifacts_take_several() {
    let lab = Lab::with_bucket().await;
    for tenant in ["acme", "other"] {
        let sql = "insert into nofx.artifact (id, tenant_id, name, type, uri, hash, size_bytes, media_type, created_at)
                   select gen_random_uuid(), $1, 'x', 'text', $2 || n, repeat('a', 64), 1, 'text/plain', now() - interval '9 d'
                     from generate_series(1, 450) n";
        let base = format!("s3://{}/workspaces/{tenant}/", lab.ctx.config.artifacts.bucket);
        lab.admin.execute(sql, &[&tenant, &base]).await.unwrap();
        let sql = "insert into nofx.policy (tenant_id, version, document, changed_by) values ($1, 1, $2, 'sql')";
        lab.admin.execute(sql, &[&tenant, &json!({"artifacts": {"keep_days": 3}})]).await.unwrap();
    }
    let ctx = lab.worker_ctx().await;
    let mut turns = Vec::new();
    while let [tenant, ..] = artifact_storage::artifact_turns(&ctx.db, 1).await.unwrap().as_slice() {
        let planned = artifact_storage::artifacts_plan(&ctx.db, tenant, 200, true).await.unwrap().expect("a turn");
        turns.push((planned.tenant_id.0, planned.deleted));
    }
    for tenant in ["acme", "other"] {
        let of: Vec<u64> = turns.iter().filter(|turn| turn.0 == tenant).map(|turn| turn.1).collect();
        assert_eq!(of.iter().sum::<u64>(), 450, "{turns:?}");
        assert!(of.len() >= 3, "{turns:?}");
    }
    assert_ne!(turns[0].0, turns[1].0, "a tenant with much to do does not keep the other waiting: {turns:?}");
}

#[tokio::test]
async fn another_tenant_sees_and_changes_nothing() {
    let (mut lab, _, artifacts) = lab_with_run().await;
    delete(&lab, artifacts[0], "x").await;
    lab.tenant = TenantId("other".into());
    lab.ctx.config.tenant = lab.tenant.clone();
    for id in artifacts {
        assert_eq!(delete(&lab, id, "x").await.status, 404);
        assert_eq!(restore(&lab, id, 1).await.status, 404);
        assert_eq!(download(&lab, id).await.status, 404);
    }
}

#[tokio::test]
async fn a_page_restores_and_deletes() {
    let (lab, _, artifacts) = lab_with_run().await;
    set_policy(&lab, json!({"hot_days": 1})).await;
    age(&lab, 2).await;
    sweep(&lab).await;
    let console = Gateway::console(&lab, Shape::Http);
    let path = format!("/ui/artifacts/{}", artifacts[0]);
    let text = console.get(&path).await.body.to_string();
    assert!(text.contains("The bytes are in the archive") && !text.contains("artifacts/signed?id="), "{text}");
    let send = async |verb: &str, fields: &str| {
        let csrf = "0123456789abcdef0123456789abcdef";
        let cookie = format!("nofx-csrf={csrf}");
        let form = ("content-type", "application/x-www-form-urlencoded");
        let headers = [form, ("sec-fetch-site", "same-origin"), ("cookie", cookie.as_str())];
        let body = format!("csrf={csrf}&actor=ann&{fields}");
        console.send("POST", &format!("{path}/{verb}"), &headers, Some(body)).await
    };
    let wrong = send("restore", "days=0&tier=standard").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.to_string().contains("must be a whole number from 1 to 365"), "{wrong:?}");
    assert_eq!(send("restore", "days=2&tier=bulk").await.status, 303);
    assert_eq!(state(&lab, artifacts[0]).await, "restoring");
    assert_eq!(send("delete", "reason=").await.status, 400);
    assert_eq!(send("delete", "reason=a+secret").await.status, 303);
    assert_eq!(artifact(&lab, artifacts[0]).await["storage"]["reason"], "a secret");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let forged = console.send("POST", &format!("{path}/delete"), &form, Some("reason=x&csrf=no".into())).await;
    assert_eq!(forged.status, 403);
}
