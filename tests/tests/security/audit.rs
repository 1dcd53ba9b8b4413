//! The audit, and what was recorded: each change has a row of its tenant's chain, and nobody changes a row.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use nofx_tests::database::connect_to;
use nofx_tests::environment::with_role;
use nofx_tests::{Lab, plans};
use serde_json::{Value, json};
use shared::db::audit::audit_export;
use shared::domain::audit::{AuditEnd, AuditHead, Chain, line};
use shared::domain::digest::sha256_hex;
use shared::domain::principal::{Caller, Via};
use shared::domain::{Kind, Role, RunId};
use tokio::sync::Barrier;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

/// Ann of the local tenant, with what a request says about itself.
fn ann() -> Value {
    let caller = Caller::local(shared::domain::TenantId("acme".into()));
    let mut caller = serde_json::to_value(caller).expect("a caller");
    (caller["ip"], caller["request_id"]) = (json!("203.0.113.7"), json!("r-1"));
    caller
}

async fn call(client: &Client, function: &str, mut p: Value) -> Value {
    p["caller"] = ann();
    p["actor"] = json!("ann");
    client.query_one(&format!("select nofx.{function}($1)"), &[&p]).await.expect(function).get(0)
}

/// Entries of the tenant `acme` after number `after`, oldest first.
async fn entries(lab: &Lab, after: i64) -> Vec<Value> {
    let sql = "select body::jsonb from nofx.audit where tenant_id = 'acme' and seq > $1 order by seq";
    lab.admin.query(sql, &[&after]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn last(lab: &Lab) -> i64 {
    lab.admin.query_one("select seq from nofx.audit_head where tenant_id = 'acme'", &[]).await.unwrap().get(0)
}

async fn gate(lab: &Lab, run: RunId) -> Uuid {
    let id = Uuid::new_v4();
    call(&lab.admin, "gate_create", json!({ "id": id, "run_id": run, "gate_type": "manual:x" })).await;
    id
}

/// The chain of `acme` as it is exported, in pages of `limit` rows. The head, if it verifies.
async fn verified(lab: &Lab, limit: i64) -> AuditHead {
    let mut chain = Chain::after(0, None);
    let mut after = 0;
    loop {
        let page = audit_export(&lab.session(), after, limit).await.unwrap();
        for row in &page.rows {
            chain.add(line(row).unwrap().trim_end()).unwrap_or_else(|fault| panic!("{fault}"));
        }
        if let Some(next) = page.next {
            after = next;
            continue;
        }
        let end = AuditEnd { tenant: lab.tenant.clone(), head: page.head };
        chain.add(line(&end).unwrap().trim_end()).unwrap_or_else(|fault| panic!("{fault}"));
        return chain.end().unwrap();
    }
}

/// One row in every table that is kept.
async fn recorded() -> Lab {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(2)).await;
    let gate = gate(&lab, run).await;
    call(&lab.admin, "gate_decide", json!({ "gate_id": gate, "decision": "approve", "envelope": {} })).await;
    call(&lab.admin, "policy_set", json!({ "document": { "gates": {} } })).await;
    let sql = "insert into nofx.seal (run_id, generation, tenant_id, digest, keyid, uri, size_bytes, events, created_at)
               select r.id, 1, r.tenant_id, repeat('a', 64), repeat('b', 64), 's3://b/k', 1, r.event_seq, now() from nofx.run r where r.id = $1";
    lab.admin.execute(sql, &[&run.0]).await.unwrap();
    lab
}

const KEPT: [&str; 7] = ["event", "audit", "audit_head", "approval", "tenant_event", "policy", "seal"];

/// Everything in the tables that are kept.
async fn kept(lab: &Lab) -> Vec<Value> {
    let mut all = Vec::new();
    for table in KEPT {
        let sql = format!("select coalesce(jsonb_agg(t order by t::text), '[]') from nofx.{table} t");
        let rows: Value = lab.admin.query_one(&sql, &[]).await.unwrap().get(0);
        assert_ne!(rows, json!([]), "{table} has no row, so nothing is proved");
        all.push(rows);
    }
    all
}

#[tokio::test]
async fn no_role_changes_or_deletes_what_was_recorded() {
    let lab = recorded().await;
    let before = kept(&lab).await;
    let mut logins = vec![("owner", connect_to(&lab.database.url).await)];
    for role in ["nofx_api", "nofx_worker", "nofx_writer", "authenticated", "anon"] {
        logins.push((role, connect_to(&with_role(&lab.database.url, role, None)).await));
    }
    logins.push(("the workers' login", connect_to(&lab.database.worker_url()).await));
    for (role, client) in &logins {
        for table in KEPT {
            for statement in [
                format!("update nofx.{table} set tenant_id = 'other'"),
                format!("update nofx.{table} set tenant_id = tenant_id"),
                format!("delete from nofx.{table}"),
                format!("truncate nofx.{table}"),
                format!("truncate nofx.{table}, nofx.run cascade"),
                format!("merge into nofx.{table} t using (values (1)) v on true when matched then delete"),
                format!("set session_replication_role = replica; delete from nofx.{table}"),
                format!("set session_replication_role = replica; update nofx.{table} set tenant_id = 'other'"),
            ] {
                let error = client.batch_execute(&statement).await.expect_err(&format!("{role}: {statement}"));
                let expected =
                    if *role == "owner" { SqlState::RESTRICT_VIOLATION } else { SqlState::INSUFFICIENT_PRIVILEGE };
                assert_eq!(error.code(), Some(&expected), "{role}: {statement}");
                // A setting of a statement that failed is undone.
                client.batch_execute("rollback").await.unwrap();
            }
        }
    }
    assert_eq!(kept(&lab).await, before);
}

#[tokio::test]
async fn a_record_goes_only_with_its_run_and_the_audit_says_so() {
    let lab = recorded().await;
    for statement in ["delete from nofx.gate", "truncate nofx.run cascade", "truncate nofx.gate cascade"] {
        let error = lab.admin.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code(), Some(&SqlState::RESTRICT_VIOLATION), "{statement}");
    }
    let other = lab.submit(&plans::chain(1)).await;
    let before = last(&lab).await;
    let sql = "delete from nofx.run where id <> $1";
    assert_eq!(lab.admin.execute(sql, &[&other.0]).await.unwrap(), 1);
    let left = "select (select count(*) from nofx.approval), (select count(*) from nofx.event where run_id <> $1),
                       (select count(*) from nofx.event where run_id = $1)";
    let row = lab.admin.query_one(left, &[&other.0]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 0));
    assert!(row.get::<_, i64>(2) > 0);
    let [entry] = &entries(&lab, before).await[..] else { panic!("one entry for the statement") };
    assert_eq!((&entry["action"], &entry["detail"]["runs"]), (&json!("runs.deleted"), &json!(1)));
    assert_eq!(entry["actor"], "database:postgres");
    verified(&lab, 100).await;
}

#[tokio::test]
async fn nobody_adds_a_row_that_does_not_continue_the_chain() {
    let lab = recorded().await;
    let copy = |change: &str| {
        format!(
            "insert into nofx.audit select (jsonb_populate_record(a, {change})).* from nofx.audit a
              where a.tenant_id = 'acme' order by a.seq desc limit 1"
        )
    };
    for statement in [
        copy("jsonb_build_object('seq', a.seq + 1)"),
        copy("jsonb_build_object('seq', a.seq + 1, 'prev_hash', a.hash)"),
        copy(
            "jsonb_build_object('seq', a.seq + 2, 'prev_hash', a.hash, 'hash', sha256(a.hash || convert_to(a.body, 'UTF8')))",
        ),
        copy("jsonb_build_object('tenant_id', 'third', 'seq', 1)"),
        "insert into nofx.audit_head (tenant_id, seq, hash) values ('third', 1, sha256(''))".into(),
        "insert into nofx.audit_head (tenant_id, seq, hash) values ('third', 0, sha256(''))".into(),
        "update nofx.audit_head set seq = seq - 1".into(),
        "update nofx.audit_head set seq = 0, hash = decode(repeat('00', 32), 'hex')".into(),
        "update nofx.audit_head set seq = seq + 1".into(),
        "update nofx.audit_head set hash = sha256('')".into(),
    ] {
        let error = lab.admin.batch_execute(&statement).await.expect_err(&statement);
        assert_eq!(error.code(), Some(&SqlState::RESTRICT_VIOLATION), "{statement}");
    }
    verified(&lab, 2).await;
}

/// Tables whose changes the audit records, with the kinds of changes: 4 insert, 8 delete, 16 update.
const AUDITED: [(&str, i16); 11] = [
    ("api_token", 4 + 8),
    ("api_token", 16),
    ("approval", 4),
    ("db_write_rule", 4 + 8 + 16),
    ("gate_link", 4 + 16),
    ("membership", 4 + 8),
    ("membership", 16),
    ("policy", 4),
    ("run", 8),
    ("tenant", 4 + 8),
    ("tenant", 16),
];

#[tokio::test]
async fn the_triggers_of_the_audit_are_these_and_run_at_the_commit() {
    let lab = Lab::new().await;
    let sql = "select c.relname::text, t.tgtype & 28, t.tgdeferrable and t.tginitdeferred
                 from pg_trigger t join pg_class c on c.oid = t.tgrelid
                where t.tgfoid in ('nofx.audit_change'::regproc, 'nofx.audit_runs_deleted'::regproc) and t.tgenabled = 'O'
                order by 1, 2";
    let rows = lab.admin.query(sql, &[]).await.unwrap();
    let triggers: Vec<(String, i32)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(triggers, AUDITED.map(|(table, kinds)| (table.to_owned(), i32::from(kinds))));
    for row in rows {
        assert_eq!(row.get::<_, bool>(2), row.get::<_, &str>(0) != "run", "{}", row.get::<_, &str>(0));
    }
    // What the engine writes for each step pays nothing.
    let sql = "select count(*) from pg_trigger t
                where t.tgrelid = any (array['nofx.event', 'nofx.step', 'nofx.attempt']::regclass[]) and not t.tgisinternal
                  and t.tgtype & 4 = 4";
    assert_eq!(lab.admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn each_change_has_an_entry_with_who_when_from_where_and_what() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(1)).await;
    let gates = [gate(&lab, run).await, gate(&lab, run).await, gate(&lab, run).await];
    let before = last(&lab).await;
    call(&lab.admin, "policy_set", json!({ "document": { "gates": {} }, "reason": "a start" })).await;
    let rule = json!({ "table_name": "public.t", "allowed_ops": ["insert"], "constraints": {} });
    call(&lab.admin, "rule_set", rule.clone()).await;
    call(&lab.admin, "rule_set", rule).await;
    call(&lab.admin, "rule_delete", json!({ "table_name": "public.t" })).await;
    for (gate, decision) in gates.iter().zip(["approve", "waive", "reject"]) {
        call(
            &lab.admin,
            "gate_decide",
            json!({ "gate_id": gate, "decision": decision, "reason": "because", "envelope": {} }),
        )
        .await;
    }
    let entries = entries(&lab, before).await;
    let told: Vec<(&str, &str)> =
        entries.iter().map(|entry| (entry["action"].as_str().unwrap(), entry["subject"].as_str().unwrap())).collect();
    let gates = gates.map(|gate| gate.to_string());
    assert_eq!(
        told,
        [
            ("policy.set", "policy"),
            ("rule.set", "public.t"),
            ("rule.set", "public.t"),
            ("rule.deleted", "public.t"),
            ("decision.approved", &gates[0]),
            ("decision.waived", &gates[1]),
            ("decision.rejected", &gates[2]),
        ]
    );
    let by = json!({ "kind": "person", "subject": "local", "role": "admin", "via": "local" });
    for entry in &entries {
        assert_eq!((&entry["actor"], &entry["by"]), (&json!("ann"), &by), "{entry}");
        assert_eq!((&entry["ip"], &entry["request_id"]), (&json!("203.0.113.7"), &json!("r-1")), "{entry}");
        assert_eq!((&entry["tenant"], &entry["database"]), (&json!("acme"), &json!("postgres")));
    }
    assert_eq!(entries[0]["detail"], json!({ "version": 1, "reason": "a start" }));
    let digest = lab.text("select bound_digest::text from nofx.gate where id = $1", gates[0].parse().unwrap()).await;
    let about =
        json!({ "decision": "approve", "reason": "because", "run_id": run, "is_self": true, "bound_digest": digest });
    assert_eq!(entries[4]["detail"], about);
    // Each state that a change finds is the one that the change before left.
    assert_eq!((&entries[1]["before"], &entries[3]["after"]), (&Value::Null, &Value::Null));
    assert_eq!((&entries[1]["after"], &entries[2]["after"]), (&entries[2]["before"], &entries[3]["before"]));
    let stored = "select jsonb_strip_nulls(to_jsonb(p))::text from nofx.policy p";
    lab.admin.batch_execute("set timezone = 'UTC'").await.unwrap();
    let stored: String = lab.admin.query_one(stored, &[]).await.unwrap().get(0);
    assert_eq!(entries[0]["after"], sha256_hex(stored.as_bytes()));
    verified(&lab, 3).await;
}

#[tokio::test]
async fn changes_by_hand_are_told_from_those_of_callers() {
    let lab = Lab::new().await;
    let before = last(&lab).await;
    lab.token(Kind::Agent, Role::Operator).await;
    let session = "insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, secret_sha256, expires_at)
                   values (gen_random_uuid(), 'acme', 'person', 'local', 'local', 'x', sha256('x'), clock_timestamp() + interval '1 hour')";
    lab.admin.batch_execute(session).await.unwrap();
    let changes = [
        "update nofx.api_token set last_used_at = now(), last_used_ip = '::1'",
        "update nofx.api_token set revoked_at = now(), revoked_by = 'ann' where kind = 'agent'",
        "update nofx.api_token set name = 'x' where kind = 'agent'",
        "delete from nofx.api_token where kind = 'agent'",
        "insert into nofx.membership (tenant_id, subject, role, name, created_by) values ('acme', 'ben', 'viewer', 'Ben', 'test')",
        "update nofx.membership set role = 'admin' where subject = 'ben'",
        "update nofx.membership set removed_at = now() where subject = 'ben'",
        "delete from nofx.membership where subject = 'ben'",
        "update nofx.tenant set disabled_at = now() where tenant_id = 'acme'",
    ];
    for change in changes {
        lab.admin.batch_execute(change).await.unwrap();
    }
    let entries = entries(&lab, before).await;
    let told: Vec<&str> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    let expected = [
        "token.created",
        "session.created",
        "token.revoked",
        "token.set",
        "token.deleted",
        "member.set",
        "member.set",
        "member.removed",
        "member.removed",
        "tenant.set",
    ];
    assert_eq!(told, expected, "and none for the use of a token");
    for entry in &entries {
        assert_eq!((&entry["actor"], &entry["by"]), (&json!("database:postgres"), &Value::Null), "{entry}");
    }
    assert_eq!(entries[2]["detail"]["revoked_by"], "ann");
    // The digest of a token's row and its text say nothing about its secret.
    let text = serde_json::to_string(&entries).unwrap();
    let hash: String =
        lab.admin.query_one("select encode(secret_sha256, 'hex') from nofx.api_token", &[]).await.unwrap().get(0);
    assert!(!text.contains(&hash) && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_caller_of_one_tenant_is_not_named_in_the_chain_of_another() {
    let lab = Lab::new().await;
    lab.admin.batch_execute("begin").await.unwrap();
    call(&lab.admin, "policy_set", json!({ "document": { "gates": {} } })).await;
    let by_hand =
        "insert into nofx.policy (tenant_id, version, document, changed_by) values ('other', 1, '{}', 'eve'); commit";
    lab.admin.batch_execute(by_hand).await.unwrap();
    let sql = "select tenant_id, actor from nofx.audit where action = 'policy.set' order by 1";
    let rows = lab.admin.query(sql, &[]).await.unwrap();
    let told: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let told: Vec<(&str, &str)> = told.iter().map(|(tenant, actor)| (tenant.as_str(), actor.as_str())).collect();
    assert_eq!(told, [("acme", "ann"), ("other", "database:postgres")]);
}

#[tokio::test]
async fn a_change_that_is_undone_has_no_entry() {
    let lab = Lab::new().await;
    let before = last(&lab).await;
    lab.admin.batch_execute("begin").await.unwrap();
    call(&lab.admin, "policy_set", json!({ "document": { "gates": {} } })).await;
    lab.admin.batch_execute("rollback").await.unwrap();
    assert_eq!(last(&lab).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_writers_leave_a_chain_without_a_gap_and_never_deadlock_with_decisions() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(1)).await;
    let other = lab.submit(&plans::chain(1)).await;
    let mut work: Vec<(&str, Value)> = Vec::new();
    for n in 0..25 {
        let gate = gate(&lab, if n % 2 == 0 { run } else { other }).await;
        work.push(("gate_decide", json!({ "gate_id": gate, "decision": "approve", "envelope": {} })));
        work.push(match n % 2 {
            0 => ("policy_set", json!({ "document": { "gates": { "max_timeout_s": n + 1 } } })),
            _ => (
                "rule_set",
                json!({ "table_name": format!("public.t{n}"), "allowed_ops": ["insert"], "constraints": {} }),
            ),
        });
    }
    let before = last(&lab).await;
    let barrier = Arc::new(Barrier::new(work.len()));
    let writers = work.into_iter().map(|(function, p)| {
        let (barrier, url) = (barrier.clone(), lab.database.url.clone());
        tokio::spawn(async move {
            let client = connect_to(&url).await;
            barrier.wait().await;
            call(&client, function, p).await["result"].as_str().map(str::to_owned)
        })
    });
    let results: Vec<Option<String>> = join_all(writers).await.into_iter().map(Result::unwrap).collect();
    let words: BTreeSet<&str> = results.iter().flatten().map(String::as_str).collect();
    assert_eq!(words, BTreeSet::from(["created", "decided", "set"]));
    let head = verified(&lab, 7).await;
    assert_eq!(i64::try_from(head.seq).unwrap(), before + 50, "one entry each");
    let seqs = "select array_agg(seq order by seq) = array(select generate_series(1::bigint, max(seq))) from nofx.audit where tenant_id = 'acme'";
    assert!(lab.admin.query_one(seqs, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn only_admins_read_the_audit_and_only_that_of_their_tenant() {
    let lab = recorded().await;
    let other = "select count(*) from nofx.audit where tenant_id = 'other'";
    assert!(lab.admin.query_one(other, &[]).await.unwrap().get::<_, i64>(0) > 0);
    let client = connect_to(&with_role(&lab.database.url, "nofx_api", None)).await;
    for (kind, role, may) in
        [(Kind::Agent, Role::Admin, false), (Kind::Service, Role::Approver, false), (Kind::Service, Role::Admin, true)]
    {
        let token = shared::auth::ApiToken::parse(&lab.token(kind, role).await).expect("a token");
        let via = Via::Token { id: token.id, kind, hash: token.hash() };
        let caller = Caller { via, ..Caller::local(lab.tenant.clone()) };
        for (function, list) in [("audit_page", "entries"), ("audit_export", "rows")] {
            let p = json!({ "caller": caller, "tenant_id": "other", "after": if list == "rows" { Some(0) } else { None }, "limit": 1000 });
            let answer = client.query_one(&format!("select nofx.{function}($1)"), &[&p]).await;
            match answer {
                Ok(row) => {
                    let page: Value = row.get(0);
                    assert!(may, "{kind} {role}");
                    let rows = page[list].as_array().unwrap();
                    assert!(rows.len() > 3, "{page}");
                    assert!(!page.to_string().contains("other"), "{page}");
                }
                Err(error) => assert_eq!((may, error.code().unwrap().code()), (false, "NF403")),
            }
        }
    }
}

#[tokio::test]
async fn the_actions_and_their_page_are_the_same() {
    let lab = Lab::new().await;
    let sql = "with kind(before, after) as (values
                   (null::jsonb, '{}'::jsonb), ('{}', null), ('{}', '{}'), ('{}', '{\"removed_at\": 1, \"revoked_at\": 1, \"used_at\": 1}'),
                   (null, '{\"decision\": \"approve\"}'), (null, '{\"decision\": \"reject\"}'), (null, '{\"decision\": \"waive\"}'),
                   (null, '{\"kind\": \"person\"}'), ('{\"kind\": \"person\"}', null), ('{}', '{\"kind\": \"person\"}'),
                   ('{}', '{\"kind\": \"person\", \"revoked_at\": 1}'))
               select distinct nofx.audit_action(t.name, case when k.before is null then 'INSERT' when k.after is null then 'DELETE'
                                                         else 'UPDATE' end, k.before, k.after)
                 from kind k cross join unnest($1::text[]) t(name)";
    let tables: Vec<&str> = AUDITED.iter().map(|(table, _)| *table).filter(|table| *table != "run").collect();
    let rows = lab.admin.query(sql, &[&tables]).await.unwrap();
    // What functions add themselves.
    let others = ["runs.sealed", "runs.deleted", "artifacts.archived", "artifacts.deleted", "artifacts.restore_asked"];
    let actions: BTreeSet<String> = rows.iter().filter_map(|row| row.get(0)).chain(others.map(str::to_owned)).collect();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/audit.md")).unwrap();
    let table = page.split("| action | what happened | subject |").nth(1).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let listed: BTreeSet<String> = rows
        .flat_map(|row| row.split(" | ").next().unwrap_or_default().split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    assert_eq!(actions, listed);
}
