//! Row level security: a direct reader sees only the rows of its tenant.

use std::collections::BTreeMap;

use nofx_tests::database::connect_to;
use nofx_tests::environment::with_role;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::json;
use shared::db::gate::GateDecision;
use shared::domain::gate::Decision;
use shared::domain::{Caller, GateId, TenantId};
use shared::flow::decide_gate::decide_gate;
use shared::storage::ArtifactMeta;
use tokio_postgres::error::SqlState;

/// Creates a row of the tenant in every table.
async fn fill(lab: &mut Lab, tenant: &str) {
    lab.tenant = TenantId(tenant.into());
    let plan = json!({ "goal": tenant, "steps": [
        plans::step("one", "codegen", json!({})),
        plans::step("two", "codegen", json!({})),
        plans::step("ask", "manual:deploy", json!({})),
    ] });
    let run = lab.submit(&plan).await;
    let first = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let script = Script::overriding(move |step, store| {
        let first = first.clone();
        async move {
            if step.tool != "codegen" {
                return None;
            }
            let made_from = first.lock().unwrap().clone();
            let describe =
                ArtifactMeta { kind: "text", media_type: "text/plain", made_from, ..ArtifactMeta::default() };
            let artifact = store.put("x", describe, b"x".to_vec()).await.unwrap();
            first.lock().unwrap().push(artifact.id);
            let mut outcome = nofx_tests::script::succeeded(json!({}));
            outcome.artifacts.push(artifact);
            Some(outcome)
        }
    });
    lab.settle(&script, Deliver::Once).await;
    let row = lab.admin.query_one("select id from nofx.gate where run_id = $1", &[&run.0]).await.unwrap();
    let link = "insert into nofx.gate_link (id, tenant_id, run_id, gate_id, subject, bound_digest, secret_sha256, created_by, created_at, expires_at)
                select gen_random_uuid(), g.tenant_id, g.run_id, g.id, 'ann', repeat('a', 64), sha256('secret'), 'test', now(), now() + interval '1 h'
                  from nofx.gate g where g.id = $1";
    lab.admin.execute(link, &[&row.get::<_, uuid::Uuid>(0)]).await.unwrap();
    let decision = GateDecision {
        gate_id: GateId(row.get(0)),
        decision: Decision::Approve,
        actor: "ann",
        reason: None,
        seen: None,
    };
    decide_gate(&lab.ctx, &lab.session(), &decision).await.unwrap();
    let sql = "insert into nofx.seal (run_id, generation, tenant_id, digest, keyid, uri, size_bytes, events, created_at)
               select r.id, 1, r.tenant_id, repeat('a', 64), repeat('b', 64), 's3://b/k', 1, r.event_seq, now() from nofx.run r where r.id = $1";
    lab.admin.execute(sql, &[&run.0]).await.unwrap();
    let rule =
        "insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops) values ($1, 'public.t', '{insert}')";
    lab.admin.execute(rule, &[&tenant]).await.unwrap();
    let policy = "insert into nofx.policy (tenant_id, version, document, changed_by) values ($1, 1, '{}', 'ann')";
    lab.admin.execute(policy, &[&tenant]).await.unwrap();
    let sql = "insert into nofx.membership (tenant_id, subject, role, name, created_by) values ($1, 'ann', 'viewer', 'Ann', 'test')";
    lab.admin.execute(sql, &[&tenant]).await.unwrap();
    let sql = "insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, role, secret_sha256, expires_at)
               values (gen_random_uuid(), $1, 'agent', 'agent:a', 'ann', 'a', 'viewer', sha256('secret'), now() + interval '1 h')";
    lab.admin.execute(sql, &[&tenant]).await.unwrap();
    let sql = "with counted as (insert into nofx.stored_bytes (tenant_id, counted_to, bytes) values ($1, now(), 1))
               insert into nofx.request (tenant_id, request_id, at) values ($1, 'r', now())";
    lab.admin.execute(sql, &[&tenant]).await.unwrap();
    let sql = "with call as (
                   insert into nofx.llm_call (id, tenant_id, run_id, step_id, attempt, provider, model_requested, deployment, because,
                                              reserved_usd_micros, started_at, due_at)
                   select gen_random_uuid(), s.tenant_id, s.run_id, s.id, 1, 'openai', 'm', 'd', '{}', 0, now(), now() + interval '1 h'
                     from nofx.step s where s.run_id = $2 limit 1
                   returning id, tenant_id, step_id), spend as (
                   insert into nofx.llm_spend (tenant_id, period, starts_on) values ($1, 'day', current_date)), progress as (
                   insert into nofx.llm_progress (call_id, tenant_id, step_id, attempt, bytes, tail, reported_at)
                   select c.id, c.tenant_id, c.step_id, 1, 1, 'x', now() from call c)
               insert into nofx.llm_cooldown (tenant_id, deployment, until, kind, reason, started_at)
               values ($1, 'd', now() + interval '1 h', 'transient', '503', now())";
    lab.admin.execute(sql, &[&tenant, &run.0]).await.unwrap();
    let sql = "with pass as (insert into nofx.artifact_pass (tenant_id, policy_version, next_at) values ($1, 0, now())), leftover as (
                   insert into nofx.attempt_leftover (step_id, attempt, tenant_id, run_id, due_at)
                   select s.id, 1, s.tenant_id, s.run_id, now() from nofx.step s where s.run_id = $2 limit 1), used as (
                   insert into nofx.run_artifact (artifact_id, run_id, tenant_id)
                   select a.id, a.run_id, a.tenant_id from nofx.artifact a where a.run_id = $2 limit 1)
               insert into nofx.artifact_storage (artifact_id, tenant_id, state, since, actor)
               select a.id, a.tenant_id, 'archived', now(), 'policy' from nofx.artifact a where a.run_id = $2 limit 1";
    assert_eq!(lab.admin.execute(sql, &[&tenant, &run.0]).await.unwrap(), 1);
    let sql = "insert into nofx.jwks (tenant_id, issuer, document, fetched_at) values ($1, 'https://issuer.test', '{}', now())";
    lab.admin.execute(sql, &[&tenant]).await.unwrap();
    let sql =
        "insert into nofx.sweep (tenant_id, ended_at, duration_ms, failed, report) values ($1, now(), 1, false, '{}')";
    lab.admin.execute(sql, &[&tenant]).await.unwrap();
}

/// Claims of Ann, a member of the tenant.
fn claims_of(tenant: &str) -> String {
    json!({ "sub": "ann", "app_metadata": { "tenant_id": tenant } }).to_string()
}

async fn two_tenants() -> Lab {
    let mut lab = Lab::with_bucket().await;
    fill(&mut lab, "acme").await;
    fill(&mut lab, "other").await;
    lab
}

/// The number of rows that a client sees, by table and tenant, in the tables that it may read.
async fn seen(client: &tokio_postgres::Client) -> BTreeMap<(String, String), i64> {
    let sql = "select relname::text from pg_class
                where relnamespace = 'nofx'::regnamespace and relkind = 'r' and has_table_privilege(oid, 'select')";
    let mut seen = BTreeMap::new();
    for table in client.query(sql, &[]).await.unwrap() {
        let table: String = table.get(0);
        let counted = format!("select tenant_id, count(*) from nofx.{table} group by 1");
        for row in client.query(&counted, &[]).await.unwrap() {
            seen.insert((table.clone(), row.get(0)), row.get(1));
        }
    }
    seen
}

/// The roles that read under row level security.
const READERS: [&str; 2] = ["nofx_api", "authenticated"];

#[tokio::test]
async fn a_reader_sees_only_its_tenants_rows_in_every_table() {
    let lab = two_tenants().await;
    let all = seen(&lab.admin).await;
    let tables = all.keys().filter(|(_, tenant)| tenant == "acme").count();
    assert!(tables >= 15, "a table without rows proves nothing: {all:?}");
    assert_eq!(all.len(), 2 * tables);
    for role in READERS {
        for tenant in ["acme", "other"] {
            let reader = connect_to(&with_role(&lab.database.url, role, Some(&claims_of(tenant)))).await;
            let found = seen(&reader).await;
            assert!(found.len() >= 12, "{role} reads {found:?}");
            for (key, count) in &found {
                assert_eq!((key.1.as_str(), Some(count)), (tenant, all.get(key)), "{role} {key:?}");
            }
        }
    }
}

#[tokio::test]
async fn each_policy_is_what_keeps_the_tenants_apart() {
    let mut lab = two_tenants().await;
    let sql = "select c.relname::text, p.polname::text, r.rolname::text
                 from pg_policy p
                 join pg_class c on c.oid = p.polrelid
                 join pg_roles r on r.oid = any (p.polroles)
                where c.relnamespace = 'nofx'::regnamespace order by 1, 2";
    let policies = lab.admin.query(sql, &[]).await.unwrap();
    assert!(policies.len() > 25, "{}", policies.len());
    for policy in policies {
        let (table, policy, role): (String, String, String) = (policy.get(0), policy.get(1), policy.get(2));
        assert!(READERS.contains(&role.as_str()), "{policy} of {table} is for {role}");
        let mut rows = async |change: String| {
            let transaction = lab.admin.transaction().await.unwrap();
            // Some tables have no grant now. Their policy must hold when they get one.
            let sql = format!("{change}; grant select on nofx.{table} to {role}; set local role {role};");
            transaction.batch_execute(&sql).await.unwrap();
            let claims = "select set_config('request.jwt.claims', $1, true)";
            transaction.execute(claims, &[&claims_of("acme")]).await.unwrap();
            let sql = format!("select tenant_id, count(*) from nofx.{table} group by 1 order by 1");
            let rows = transaction.query(&sql, &[]).await.unwrap();
            rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
        };
        assert_eq!(rows("select".into()).await, ["acme"], "{policy} of {table}");
        assert_eq!(rows(format!("drop policy {policy} on nofx.{table}")).await, [""; 0], "{policy} of {table}");
        let open = format!("alter table nofx.{table} disable row level security");
        assert_eq!(rows(open).await, ["acme", "other"], "{policy} of {table}");
    }
}

#[tokio::test]
async fn a_person_who_is_no_member_now_reads_nothing() {
    let lab = two_tenants().await;
    let claims = claims_of("acme");
    let reader = async || seen(&connect_to(&with_role(&lab.database.url, "authenticated", Some(&claims))).await).await;
    assert!(!reader().await.is_empty());
    for (ends, again) in [
        ("update nofx.membership set removed_at = now()", "update nofx.membership set removed_at = null"),
        (
            "update nofx.membership set subject = 'ben' where subject = 'ann'",
            "update nofx.membership set subject = 'ann' where subject = 'ben'",
        ),
        ("update nofx.tenant set disabled_at = now()", "update nofx.tenant set disabled_at = null"),
    ] {
        lab.admin.batch_execute(ends).await.unwrap();
        assert_eq!(reader().await, BTreeMap::new(), "{ends}");
        lab.admin.batch_execute(again).await.unwrap();
        assert!(!reader().await.is_empty(), "{again}");
    }
}

#[tokio::test]
async fn a_member_that_reads_directly_writes_nothing_and_calls_nothing() {
    let lab = two_tenants().await;
    let member = connect_to(&with_role(&lab.database.url, "authenticated", Some(&claims_of("acme")))).await;
    for statement in [
        "update nofx.run set goal = 'x'",
        "delete from nofx.event",
        "insert into nofx.approval default values",
        "truncate nofx.run",
        "select * from nofx.api_token",
        "select * from nofx.membership",
        "select nofx.gate_decide('{}')",
        "select nofx.caller_admit('{}', 'runs.read')",
        "select nofx.read('{}', 'runs.read', 'select 1', '[]')",
    ] {
        let error = member.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}");
    }
    let anon = connect_to(&with_role(&lab.database.url, "anon", Some(&claims_of("acme")))).await;
    let error = anon.batch_execute("select * from nofx.run").await.expect_err("anon reads nothing");
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
}

#[tokio::test]
async fn claims_without_a_tenant_see_nothing() {
    let lab = two_tenants().await;
    let nobody: [Option<&str>; 6] = [
        None,
        Some("{}"),
        Some(r#"{"tenant_id":"acme"}"#),
        // Users can write their own `user_metadata`, so it does not count.
        Some(r#"{"user_metadata":{"tenant_id":"acme"}}"#),
        Some(r#"{"app_metadata":{"tenant_id":null}}"#),
        Some(r#"{"app_metadata":"acme"}"#),
    ];
    for role in READERS {
        for claims in nobody {
            let reader = connect_to(&with_role(&lab.database.url, role, claims)).await;
            assert_eq!(seen(&reader).await, BTreeMap::new(), "{role} {claims:?}");
        }
    }
    let reader = connect_to(&with_role(&lab.database.url, "nofx_api", Some("not json"))).await;
    assert!(reader.query("select * from nofx.run", &[]).await.is_err(), "malformed claims are rejected");
}

#[tokio::test]
async fn every_table_has_a_tenant_and_row_level_security() {
    let lab = Lab::new().await;
    let sql = "select c.relname::text, c.relrowsecurity,
                      exists (select from pg_policy p where p.polrelid = c.oid),
                      exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id'
                                                           and a.attnotnull)
                 from pg_class c where c.relnamespace = 'nofx'::regnamespace and c.relkind in ('r', 'p')";
    let tables = lab.admin.query(sql, &[]).await.unwrap();
    assert!(tables.len() >= 10);
    for row in tables {
        let properties: (bool, bool, bool) = (row.get(1), row.get(2), row.get(3));
        assert_eq!(properties, (true, true, true), "{} (row level security, policy, tenant)", row.get::<_, String>(0));
    }
}

#[tokio::test]
async fn no_transition_changes_another_tenants_run() {
    let lab = two_tenants().await;
    let run: uuid::Uuid =
        lab.admin.query_one("select id from nofx.run where tenant_id = 'other'", &[]).await.unwrap().get(0);
    let before = lab.everything(shared::domain::RunId(run)).await;
    let caller = Caller::local(TenantId("acme".into()));
    // The tenant is that of the caller, whatever the call says.
    let call = json!({ "caller": caller, "tenant_id": "other", "run_id": run, "actor": "mallory", "id": uuid::Uuid::new_v4(),
                       "gate_type": "manual:x" });
    for function in ["run_cancel", "run_pause", "run_resume", "run_retry", "gate_create"] {
        let sql = format!("select nofx.{function}($1) ->> 'result'");
        let result: String = lab.admin.query_one(&sql, &[&call]).await.unwrap().get(0);
        assert_eq!(result, "not_found", "{function}");
    }
    let gate: uuid::Uuid = before["gates"][0]["id"].as_str().unwrap().parse().unwrap();
    let call =
        json!({ "caller": caller, "tenant_id": "other", "gate_id": gate, "decision": "approve", "actor": "mallory" });
    let result: String =
        lab.admin.query_one("select nofx.gate_decide($1) ->> 'result'", &[&call]).await.unwrap().get(0);
    assert_eq!(result, "not_found");
    lab.assert_unchanged(shared::domain::RunId(run), &before).await;
}
