//! What a run uses is left alone, and what keeps a deletion or a policy from its end is visible.

use nofx_tests::{Lab, plans};
use serde_json::{Value, json};
use shared::db::artifact_storage;
use shared::domain::ArtifactId;
use shared::flow::keep_artifacts::keep_artifacts;

use crate::gateway::{Gateway, Shape};
use crate::storage::{age, artifact, delete, hurry, lab_with_run, restore, set_policy, state, sweep};

/// Adds a use that nobody could have seen when the deletion was recorded.
async fn use_it(lab: &Lab, id: ArtifactId, run: shared::domain::RunId) {
    let sql = "insert into nofx.run_artifact (artifact_id, run_id, tenant_id) values ($1, $2, $3)";
    lab.admin.execute(sql, &[&id.0, &run.0, &lab.tenant.0]).await.unwrap();
}

#[tokio::test]
async fn only_a_use_holds_a_deletion_and_the_run_is_named() {
    let (lab, _, artifacts) = lab_with_run().await;
    let large = artifacts[0];
    let mentioned = json!({"goal": format!("about {large}"), "steps": [
        plans::step("s", "echo", json!({"text": format!("about {large}")}))]});
    let open = lab.submit(&mentioned).await;
    assert_eq!(delete(&lab, large, "x").await.status, 202, "to mention it is no use");
    use_it(&lab, large, open).await;
    hurry(&lab).await;
    assert_eq!(sweep(&lab).await.deleted, 0);
    let storage = artifact(&lab, large).await["storage"].clone();
    let problem = format!("the run {open} has not ended and uses it");
    assert_eq!((&storage["state"], &storage["problem"]), (&json!("deleting"), &json!(problem)));
    Gateway::api(&lab, Shape::Http).post(&format!("/runs/{open}/cancel"), &json!({})).await;
    hurry(&lab).await;
    assert_eq!(sweep(&lab).await.deleted, 1);
    assert_eq!(artifact(&lab, large).await["storage"]["problem"], Value::Null);
}

#[tokio::test]
async fn whole_numbers_count_however_they_are_written() {
    for days in ["30.0", "3e1", "0.3E+2"] {
        let (lab, _, artifacts) = lab_with_run().await;
        let body = format!(
            "{{\"document\": {{\"artifacts\": {{\"hot_days\": {days}, \"keep_days\": 3650.0, \"archive_min_bytes\": 1e5}}}}, \"actor\": \"ann\"}}"
        );
        let set = Gateway::api(&lab, Shape::Http).send("PUT", "/policy", &[], Some(body)).await;
        assert_eq!(set.status, 200, "{set:?}");
        age(&lab, 31).await;
        assert_eq!(sweep(&lab).await.archived, 1, "{days}");
        assert_eq!(state(&lab, artifacts[0]).await, "archived");
    }
}

#[tokio::test]
async fn a_policy_that_this_release_cannot_read_is_told() {
    let (lab, ..) = lab_with_run().await;
    age(&lab, 31).await;
    let ctx = lab.worker_ctx().await;
    for (version, artifacts, unreadable) in
        [(1, json!({"keep_days": "1"}), Some(1)), (2, json!({"keep_days": 1.5}), Some(2)), (3, json!({}), None)]
    {
        let sql = "insert into nofx.policy (tenant_id, version, document, changed_by) values ($1, $2, $3, 'sql')";
        let document = json!({ "artifacts": artifacts });
        lab.admin.execute(sql, &[&lab.tenant.0, &version, &document]).await.unwrap();
        assert_eq!(artifact_storage::artifact_turns(&ctx.db, 9).await.unwrap(), std::slice::from_ref(&lab.tenant));
        let planned = artifact_storage::artifacts_plan(&ctx.db, &lab.tenant, 200, true).await.unwrap().expect("a turn");
        assert_eq!((planned.unreadable, planned.archived, planned.deleted), (unreadable, 0, 0));
    }
}

#[tokio::test]
async fn a_tenant_that_fails_does_not_keep_the_others_from_their_turn() {
    let (lab, _, artifacts) = lab_with_run().await;
    set_policy(&lab, json!({"hot_days": 30})).await;
    let sql = "insert into nofx.artifact (id, tenant_id, name, type, uri, hash, size_bytes, media_type)
               select gen_random_uuid(), 'other', 'x', 'text', 's3://x/' || n, repeat('a', 64), 200000, 'text/plain' from generate_series(1, 3) n";
    lab.admin.execute(sql, &[]).await.unwrap();
    let sql = "insert into nofx.policy (tenant_id, version, document, changed_by) values ('other', 1, $1, 'sql')";
    lab.admin.execute(sql, &[&json!({"artifacts": {"hot_days": 30}})]).await.unwrap();
    age(&lab, 31).await;
    let broken =
        "create function public.broken() returns trigger language plpgsql as $$ begin raise exception 'broken'; end $$;
                  create trigger broken before insert or update on nofx.artifact_storage
                     for each row when (new.tenant_id = 'other') execute function public.broken();";
    lab.admin.batch_execute(broken).await.unwrap();
    let ctx = lab.worker_ctx().await;
    assert!(keep_artifacts(&ctx).await.is_err(), "it is reported");
    assert_eq!(state(&lab, artifacts[0]).await, "archived");

    // The same if what was marked cannot be taken.
    lab.admin.batch_execute("alter table nofx.artifact_storage disable trigger broken").await.unwrap();
    let sql = "insert into nofx.artifact_storage (artifact_id, tenant_id, state, since, actor, due_at)
               select id, tenant_id, 'deleting', now(), 'x', now() - interval '1 day' from nofx.artifact where tenant_id = 'other'";
    assert_eq!(lab.admin.execute(sql, &[]).await.unwrap(), 3);
    lab.admin.batch_execute("alter table nofx.artifact_storage enable trigger broken").await.unwrap();
    assert_eq!(delete(&lab, artifacts[1], "x").await.status, 202);
    let sql = "update nofx.artifact_storage set due_at = now() - interval '1 s' where tenant_id <> 'other'";
    lab.admin.execute(sql, &[]).await.unwrap();
    assert!(keep_artifacts(&ctx).await.is_err());
    assert_eq!(state(&lab, artifacts[1]).await, "deleted");
}

#[tokio::test]
async fn other_terms_of_a_restore_are_refused_while_it_goes_on() {
    let (lab, run, artifacts) = lab_with_run().await;
    let large = artifacts[0];
    set_policy(&lab, json!({"hot_days": 30})).await;
    age(&lab, 31).await;
    sweep(&lab).await;
    let page = Gateway::console(&lab, Shape::Http).get(&format!("/ui/runs/{run}")).await.body.to_string();
    assert!(page.contains(", archived"), "the list of the run says so: {page}");
    assert_eq!(restore(&lab, large, 3).await.status, 202);
    assert_eq!(restore(&lab, large, 3).await.status, 200);
    let refused = restore(&lab, large, 30).await;
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("artifact_archived")), "{refused:?}");
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains("is being restored for 3 days with the tier expedited"), "{detail}");
}
