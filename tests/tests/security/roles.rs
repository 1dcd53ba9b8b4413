//! Database roles: each role may execute only the functions that it calls.

use std::collections::BTreeSet;

use nofx_tests::database::connect_to;
use nofx_tests::environment::with_role;
use nofx_tests::lab::context;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::json;
use shared::context::Ctx;
use shared::domain::{Caller, NewArtifact};
use shared::flow::sweep::sweep;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

/// The functions that the worker and the sweeper call.
const WORKER: [&str; 29] = [
    "artifact_record",
    "artifact_turns",
    "artifacts_due",
    "artifacts_plan",
    "artifacts_take",
    "artifact_origin",
    "artifacts_find",
    "attempt_is_live",
    "attempt_usage_record",
    "db_write_account",
    "db_write_look",
    "leftover_forget",
    "leftovers_take",
    "llm_cached",
    "llm_call_end",
    "llm_call_progress",
    "llm_call_start",
    "seal_read",
    "seal_record",
    "seals_take",
    "steps_claim",
    "steps_finish",
    "sweep_budgets",
    "sweep_calls",
    "sweep_gates",
    "sweep_leases",
    "sweep_record",
    "sweep_runs",
    "sweep_wakeups",
];
/// The functions that api and approvals call.
const API: [&str; 39] = [
    "artifact_delete",
    "artifact_restore",
    "artifact_storage_json",
    "approval_rules",
    "artifact_upload",
    "audit_export",
    "audit_page",
    "caller_admit",
    "db_write_target",
    "gate_create",
    "gate_decide",
    "gate_is_mine",
    "gate_standing",
    "jwks_last",
    "jwks_store",
    "keys_of",
    "limits_of",
    "link_create",
    "link_open",
    "member_list",
    "member_remove",
    "member_set",
    "policy_set",
    "principal_json",
    "read",
    "redrive_record",
    "run_cancel",
    "run_create",
    "run_pause",
    "run_resume",
    "run_retry",
    "rule_delete",
    "rule_set",
    "session_create",
    "session_end",
    "token_create",
    "token_list",
    "token_revoke",
    "whoami",
];
/// Returns only the tenant of the current session.
const EVERYBODY: &str = "tenant_id";
/// What a member that reads directly needs under row level security.
const MEMBER: &str = "member_tenant";
/// Tables that the API reaches only through functions.
const CLOSED: [&str; 9] =
    ["api_token", "audit", "audit_head", "gate_link", "jwks", "membership", "request", "stored_bytes", "tenant"];

async fn tables(lab: &Lab) -> Vec<String> {
    let sql = "select relname::text from pg_class
                where relnamespace = 'nofx'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f') order by 1";
    let tables: Vec<String> = lab.admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(tables.len() >= 10, "{tables:?}");
    tables
}

async fn executable(lab: &Lab, role: &str) -> BTreeSet<String> {
    let sql = "select proname::text from pg_proc
                where pronamespace = 'nofx'::regnamespace and has_function_privilege($1, oid, 'execute')";
    lab.admin.query(sql, &[&role]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn ctx_as(lab: &Lab, role: &str) -> Ctx {
    let mut config = lab.ctx.config.clone();
    config.database.url = with_role(&lab.database.url, role, None);
    let mut ctx = context(config).await;
    ctx.queue = lab.ctx.queue.clone();
    ctx
}

#[tokio::test]
async fn the_worker_role_has_no_privilege_on_any_table() {
    let lab = Lab::new().await;
    let worker = connect_to(&with_role(&lab.database.url, "nofx_worker", None)).await;
    let role: String = worker.query_one("select current_user::text", &[]).await.unwrap().get(0);
    assert_eq!(role, "nofx_worker", "the test proves nothing with another role");
    for table in tables(&lab).await {
        for statement in [
            format!("select * from nofx.{table}"),
            format!("insert into nofx.{table} default values"),
            format!("update nofx.{table} set tenant_id = ''"),
            format!("delete from nofx.{table}"),
            format!("truncate nofx.{table}"),
        ] {
            let error = worker.batch_execute(&statement).await.expect_err(&statement);
            assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}");
        }
    }
}

#[tokio::test]
async fn the_api_role_reads_every_open_table_and_writes_none() {
    let lab = Lab::new().await;
    let api = connect_to(&with_role(&lab.database.url, "nofx_api", None)).await;
    for table in tables(&lab).await {
        let read = api.batch_execute(&format!("select * from nofx.{table}")).await;
        assert_eq!(read.is_err(), CLOSED.contains(&table.as_str()), "{table}: {read:?}");
        for statement in [
            format!("insert into nofx.{table} default values"),
            format!("update nofx.{table} set tenant_id = ''"),
            format!("delete from nofx.{table}"),
            format!("truncate nofx.{table}"),
        ] {
            let error = api.batch_execute(&statement).await.expect_err(&statement);
            assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}");
        }
    }
}

#[tokio::test]
async fn each_role_executes_only_its_own_functions() {
    let lab = Lab::new().await;
    let named = |names: &[&str]| names.iter().chain(&[EVERYBODY]).map(|name| (*name).to_owned()).collect();
    let expected: BTreeSet<String> = named(&WORKER);
    assert_eq!(executable(&lab, "nofx_worker").await, expected);
    let expected: BTreeSet<String> = named(&API);
    assert_eq!(executable(&lab, "nofx_api").await, expected);
    assert_eq!(executable(&lab, "authenticated").await, named(&[MEMBER]));
    // A role without grants has the rights of PUBLIC.
    assert_eq!(executable(&lab, "anon").await, named(&[]));
    assert_eq!(executable(&lab, "pg_monitor").await, named(&[]));
}

#[tokio::test]
async fn a_function_that_runs_as_its_owner_pins_its_search_path() {
    let lab = Lab::new().await;
    // Otherwise a caller could create a table of the same name, which Postgres would find first.
    let sql = "select proname::text, coalesce(array_to_string(proconfig, ';'), '') from pg_proc
                where pronamespace = 'nofx'::regnamespace and prosecdef";
    let definers = lab.admin.query(sql, &[]).await.unwrap();
    assert!(definers.len() >= WORKER.len() + API.len() - 1);
    for row in definers {
        let (name, settings): (String, String) = (row.get(0), row.get(1));
        assert!(settings.split(';').any(|setting| setting == "search_path=nofx, pg_temp"), "nofx.{name}: {settings}");
    }
}

#[tokio::test]
async fn the_worker_role_suffices_for_workers_and_the_sweeper() {
    let lab = Lab::with_bucket().await;
    let worker = ctx_as(&lab, "nofx_worker").await;
    let plan = json!({ "goal": "all of it", "steps": [
        plans::step("write", "codegen", json!({})),
        plans::step("ask", "manual:deploy", json!({})),
        plans::step("flaky", "echo", json!({ "hash": "${{ steps.write.outputs.artifact_hash }}" })),
    ] });
    let run = lab.submit(&plan).await;
    let script = Script::overriding(|step, _| async move {
        (step.name == "flaky" && step.attempt == 1).then(nofx_tests::script::flaky)
    });
    lab.settle_on(&worker, &script, Deliver::Thrice).await;
    let gate = "select nofx.gate_decide(jsonb_build_object('caller', $2::jsonb, 'gate_id', id, 'decision', 'approve', 'envelope', '{}'::jsonb))
           from nofx.gate where run_id = $1";
    let caller = serde_json::to_value(Caller::local(lab.tenant.clone())).unwrap();
    lab.admin.execute(gate, &[&run.0, &caller]).await.unwrap();
    lab.wakeups_due(run).await;
    sweep(&worker).await.expect("the role suffices for the sweeper");
    lab.settle_on(&worker, &script, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn the_worker_role_suffices_for_a_gate_with_its_own_workspace() {
    let lab = Lab::new().await;
    let worker = ctx_as(&lab, "nofx_worker").await;
    let artifact = NewArtifact {
        id: shared::domain::ArtifactId(Uuid::new_v4()),
        name: "workspace.tar.gz".into(),
        kind: "workspace".into(),
        uri: format!("s3://{}/w", lab.ctx.config.artifacts.bucket),
        hash: "0".repeat(64),
        size_bytes: 1,
        media_type: "application/gzip".into(),
        metadata: json!({}),
        made_from: Vec::new(),
    };
    shared::db::artifact::artifact_upload(&lab.session(), &artifact).await.unwrap();
    let plan = |id: Uuid| {
        json!({ "goal": "judge", "steps": [
            plans::step("lint", "gate:lint", json!({ "workspace": { "archive": id } })) ] })
    };
    let script = Script::new(|step, _| async move {
        nofx_tests::script::succeeded(json!({ "archive": step.workspace.map(|workspace| workspace.archive.hash) }))
    });
    let run = lab.submit(&plan(artifact.id.0)).await;
    lab.settle_on(&worker, &script, Deliver::Once).await;
    assert_eq!(lab.snapshot(run).await["steps"]["lint"]["outputs"], json!({ "archive": "0".repeat(64) }));

    // Another tenant's artifact is not found.
    let sql = "update nofx.artifact set tenant_id = 'other' where id = $1";
    lab.admin.execute(sql, &[&artifact.id.0]).await.unwrap();
    let run = lab.submit(&plan(artifact.id.0)).await;
    lab.settle_on(&worker, &script, Deliver::Once).await;
    assert_eq!(lab.snapshot(run).await["steps"]["lint"]["error"], "no_workspace");
}
